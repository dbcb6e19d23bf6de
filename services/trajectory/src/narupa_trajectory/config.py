"""What the trajectory service is told."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from narupa_shared.config import ServiceConfig, settings_for


class TrajectoryConfig(ServiceConfig):
    """Settings of the trajectory service."""

    model_config = settings_for("trajectory")

    port: int = Field(default=38811, ge=0, le=65535)
    """Port to listen on; 0 takes any free one."""

    sources: tuple[str, ...] = ("demo:nanotube", "demo:peptide")
    """What can run, as PATH[?option=value&...] or demo:NAME. The first one runs at the start."""

    paused: bool = False
    """Whether the first source waits for a play command."""

    frame_interval_s: float = Field(default=1 / 30, ge=0, le=3600)
    """Wall-clock time from one frame to the next, s; 0 runs as fast as the engine can."""

    steps_per_frame: int | None = Field(default=None, ge=1, le=1_000_000)
    """Integration steps from one frame to the next; unset takes the source's own default."""

    velocities: bool = False
    """Whether frames carry velocities."""

    energy_share: float = Field(default=0.01, gt=0, le=1)
    """Most of the engine's time that may go into energies, where they cost it a force evaluation, while nobody pulls or wants
    every frame; frames in between have the last ones, of the instant in `energy.time`, at most 1 s ago. 1: each has its own."""

    subscriber_interval_s: float = Field(default=1 / 30, gt=0, le=60)
    """Time between the frames of a subscriber that names no interval, s."""

    minimum_subscriber_interval_s: float = Field(default=1 / 120, gt=0, le=60)
    """Shortest time between the frames of a subscriber in latest mode, s."""

    max_subscribers: int = Field(default=500, ge=1)
    """Streams of frames at a time."""

    wait_for_recorders: bool = False
    """Whether the simulation waits for subscribers of every frame that are slow to read, rather than to leave them behind."""

    recorder_patience_s: float = Field(default=30.0, gt=0, le=3600)
    """How long it waits for one that reads nothing at all, s; its stream then ends."""

    selection_limit_s: float = Field(default=10.0, gt=0, le=300)
    """How long the selection of a view may take to evaluate, s."""

    published_frames_per_s: float = Field(default=60.0, gt=0, le=1000)
    """How many frames a second each host may publish, on average."""

    published_frames_burst: int = Field(default=60, ge=1, le=10_000)
    """How many frames each host may publish at once."""

    recent_frames: int = Field(default=300, ge=1)
    """How many frames of a live source can be looked up later."""

    recent_bytes: int = Field(default=64 * 1024 * 1024, ge=0)
    """How much memory those frames may take, bytes."""

    checkpoint_interval_s: float = Field(default=1.0, gt=0, le=3600)
    """Least time between two checkpoints of the engine, s."""

    on_blow_up: Literal["stop", "resume"] = "stop"
    """After an interaction has made the simulation blow up and was taken out: wait for a play command, or go on at once."""

    pause_when_idle_s: float = Field(default=0.0, ge=0)
    """After how long without a subscriber a playing simulation pauses itself until the next one, s; 0: never."""

    load_limit_s: float = Field(default=120.0, gt=0)
    """How long a source may take to load, s."""

    silence_limit_s: float = Field(default=300.0, gt=0)
    """How long a playing engine may go without a sign of life before it is restarted, s."""

    group: str = Field(default="", max_length=64, pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$")
    """Replicas of one another have the same: one leads, as the lobby chooses, and the others relay it; unset: it stands alone."""

    relay_from: Literal["leader", "relays"] = "leader"
    """Where a replica that does not lead has its frames from: the leader, or others that have them from there, while any runs."""

    checkpoint_dir: str | None = Field(default=None, min_length=1, max_length=1024)
    """Folder, or URL of one or of a place in an object store (`file:///PATH`, `s3://BUCKET/PREFIX`), that the replicas of a group
    share, from which the next leader goes on; unset: it starts anew."""

    checkpoint_limit_s: float = Field(default=10.0, gt=0, le=600)
    """How long reading or writing a checkpoint there may take, s."""

    warm_standby: bool = True
    """Whether a replica that stands by has the source loaded, so that it takes over at once; costs the memory of an engine."""

    imd: str | None = None
    """HOST:PORT of the imd service, with grpcs:// before it if it listens with TLS; unset asks the lobby."""
