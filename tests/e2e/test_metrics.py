"""What an operator sees: every service's metrics, the document that lists them, and the dashboard and alerts made of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import runpy
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

import narupa_client
from narupa_shared.gen.nanover.protocol.trajectory import trajectory_service_pb2 as trajectory
from narupa_shared.testing.ports import unused_port
from tests.e2e.sessions import LIMIT_S, RunningSession, first, session

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
SERVICES = ("lobby", "trajectory", "imd", "gateway")
TABLE = runpy.run_path(str(MONITORING / "metrics_table.py"))
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
ALERTS = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
# Prometheus's own, of every target.
BUILT_IN = {"up"}
KEYWORDS = {"and", "or", "unless", "by", "on", "without", "ignoring", "group_left", "group_right", "bool", "offset"}
UNITS = {"short", "none", "s", "cps", "Bps", "bytes", "percentunit"}


def panels() -> Iterator[dict[str, Any]]:
    for panel in DASHBOARD["panels"]:
        yield panel
        yield from panel.get("panels", ())


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression with where it stands."""
    for panel in panels():
        for target in panel.get("targets", ()):
            yield f"panel {panel['title']}", target["expr"]
    for annotation in DASHBOARD["annotations"]["list"]:
        yield f"annotation {annotation['name']}", annotation["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield f"variable {variable['name']}", re.sub(r"label_values\((.*), \w+\)", r"\1", variable["definition"])
    for group in ALERTS:
        for rule in group["rules"]:
            yield f"alert {rule['alert']}", rule["expr"]


def names_in(expression: str) -> set[str]:
    """The metrics that an expression of PromQL reads."""
    bare = re.sub(r'"(?:\\.|[^"\\])*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", bare)
    bare = re.sub(r"\b(by|on|without|ignoring)\s*\([^)]*\)", " ", bare)
    words = re.findall(r"\b[a-zA-Z_:][a-zA-Z0-9_:]*\b(?!\s*\()", bare)
    return {word for word in words if word not in KEYWORDS}


def samples(expositions: dict[str, str]) -> dict[str, set[str]]:
    """The names under which each service has series, those included that have none yet."""
    found: dict[str, set[str]] = {}
    for service, text in expositions.items():
        names = found.setdefault(service, set())
        for family in text_string_to_metric_families(text):
            names |= {each.name for each in family.samples}
            names.add(f"{family.name}_total" if family.type == "counter" else family.name)
    return found


def series(text: str, name: str, **labels: str) -> float:
    """The sum over the samples of this name with these labels."""
    families = text_string_to_metric_families(text)
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningSession, dict[str, int]]]:
    """A session whose trajectory service is one of a group of replicas, with the metrics' port of each service."""
    ports = {service: unused_port() for service in SERVICES}
    environment = {f"NARUPA_{service.upper()}_METRICS_PORT": str(port) for service, port in ports.items()}
    folder = tmp_path_factory.mktemp("metrics")
    replica = {"NARUPA_TRAJECTORY_GROUP": "replicas", "NARUPA_TRAJECTORY_CHECKPOINT_DIR": str(folder)}
    with session(folder, "demo:nanotube", **environment, **replica) as running:
        yield running, ports


async def gateway_frames(address: str) -> AsyncGenerator[bytes, None]:
    """The responses of the gateway's stream of the latest frames."""
    async with grpc.aio.insecure_channel(address) as channel:
        call: Any = channel.unary_stream(
            "/nanover.protocol.trajectory.TrajectoryService/SubscribeLatestFrames",
            request_serializer=trajectory.GetFrameRequest.SerializeToString,
        )(trajectory.GetFrameRequest(), timeout=LIMIT_S)
        try:
            while (response := await call.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
                yield response
        finally:
            call.cancel()


@pytest.fixture(scope="module")
def expositions(watched: tuple[RunningSession, dict[str, int]]) -> dict[str, str]:
    """What each service says while somebody watches directly and through the gateway, and one call has been refused."""
    running, ports = watched

    async def scrape() -> dict[str, str]:
        async with (
            narupa_client.join(running.lobby, "Ada") as ada,
            ada.frames() as frames,
            asyncio.timeout(2 * LIMIT_S),
            contextlib.aclosing(gateway_frames(await running.address("gateway"))) as responses,
        ):
            await ada.status()
            last = await first(frames)
            await first(frames, lambda frame: frame.index > last.index + 3)
            for _ in range(3):
                await anext(responses)
            found: dict[str, str] = {}
            while series(found.get("trajectory", ""), "narupa_trajectory_steps_per_second") == 0:
                for service, port in ports.items():
                    found[service] = await asyncio.to_thread(TABLE["scraped"], f"http://127.0.0.1:{port}/metrics")
                await asyncio.sleep(0.05)
        return found

    return asyncio.run(scrape())


@pytest.mark.e2e
def test_the_numbers_are_those_of_the_session(expositions: dict[str, str]) -> None:
    of = expositions
    assert series(of["trajectory"], "narupa_trajectory_subscribers", mode="latest", form="v1") >= 1
    made = series(of["trajectory"], "narupa_trajectory_frames_made_total")
    handed = series(of["trajectory"], "narupa_trajectory_frame_lag_seconds_count")
    assert 3 < handed <= made
    assert series(of["trajectory"], "narupa_trajectory_frame_lag_seconds_sum") < handed * LIMIT_S
    assert series(of["trajectory"], "narupa_trajectory_sent_bytes_total") > 1000
    assert series(of["trajectory"], "narupa_trajectory_engine_state", state="running") == 1
    assert series(of["trajectory"], "narupa_trajectory_engine_state") == 1
    assert series(of["trajectory"], "narupa_trajectory_engine_process_resident_memory_bytes") > 1e6
    assert series(of["trajectory"], "narupa_trajectory_leads") == 1
    calls = {"method": "narupa.trajectory.v1.TrajectoryService/GetStatus"}
    assert series(of["trajectory"], "narupa_rpc_handled_total", code="OK", **calls) == 1
    assert series(of["trajectory"], "narupa_rpc_seconds_count", **calls) == 1
    assert series(of["lobby"], "narupa_lobby_services", kind="trajectory", status="running") == 1
    assert series(of["lobby"], "narupa_lobby_users", session="default") >= 2
    assert series(of["lobby"], "narupa_lobby_joins_total", outcome="new") >= 2
    assert series(of["lobby"], "narupa_lobby_commit_seconds_count") >= 2
    assert series(of["gateway"], "narupa_gateway_clients", family="gRPC") == 1
    assert series(of["gateway"], "narupa_gateway_frames_sent_total") >= 3
    assert series(of["gateway"], "narupa_gateway_upstream_lag_seconds_count") >= 3
    assert series(of["imd"], "narupa_imd_followers") == 1
    for service, text in of.items():
        assert series(text, "narupa_service_info", service=service, session="default") == 1
        assert series(text, "narupa_event_loop_lag_seconds_count") > 0
        assert series(text, "narupa_rpc_open_streams") > 0
        assert series(text, "process_resident_memory_bytes") > 1e6


@pytest.mark.e2e
def test_no_label_says_who_somebody_is_or_where_they_are(expositions: dict[str, str]) -> None:
    known = {"le", "service", "session", "method", "code", "mode", "form", "state", "family", "reason", "outcome"}
    known |= {
        "call",
        "kind",
        "status",
        "phase",
        "generation",
        "implementation",
        "major",
        "minor",
        "patchlevel",
        "version",
    }
    for service, text in expositions.items():
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                assert sample.labels.keys() <= known, f"{service}: {sample}"
                assert not any("127.0.0.1" in value for value in sample.labels.values()), f"{service}: {sample}"


@pytest.mark.e2e
def test_names_and_help_are_as_prometheus_has_them(expositions: dict[str, str]) -> None:
    for service, text in expositions.items():
        for family in text_string_to_metric_families(text):
            if not family.name.startswith("narupa_"):
                continue
            assert family.documentation.strip().endswith((".", ". ")) or "process" in family.name, family
            assert not family.name.endswith("_created"), family.name
            named = family.name.split("_")[1]
            assert named not in SERVICES or named == service, f"{service} has {family.name}"
            if family.type == "histogram":
                assert family.name.endswith("_seconds"), family.name


@pytest.mark.e2e
def test_whatever_the_dashboard_and_the_alerts_read_some_service_has(expositions: dict[str, str]) -> None:
    there = set().union(*samples(expositions).values()) | BUILT_IN
    missing = {where: names for where, text in expressions() if (names := names_in(text) - there)}
    assert not missing


@pytest.mark.e2e
def test_the_document_lists_every_metric_as_it_is(expositions: dict[str, str]) -> None:
    text = TABLE["DOCUMENT"].read_text()
    table = text.partition(TABLE["START"])[2].partition(TABLE["END"])[0].strip()
    now = TABLE["markdown"](TABLE["rows"](expositions.values()))
    assert table == now, "run deploy/monitoring/metrics_table.py against a session in use, and put its table there"


def test_names_are_found_in_expressions() -> None:
    assert names_in('sum by (le, x) (rate(a_total{b="c_d",e=~"f|g"}[$__rate_interval])) > 0.1 or on (h) i == 1') == {
        "a_total",
        "i",
    }
    assert names_in("histogram_quantile(0.95, sum(rate(j_bucket[5m])) by (le))") == {"j_bucket"}
    assert len([name for _, text in expressions() for name in names_in(text)]) > 60


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    assert DASHBOARD["uid"] == "narupa" and DASHBOARD["schemaVersion"] >= 39
    assert [each["name"] for each in DASHBOARD["templating"]["list"]] == ["datasource", "session", "instance"]
    every = list(panels())
    assert len({panel["id"] for panel in every}) == len(every)
    assert {panel["title"] for panel in every if panel["type"] == "row"} >= {"Trajectory", "Gateway", "IMD", "Lobby"}
    taken: set[tuple[int, int]] = set()
    for panel in every:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, f"{panel['title']} lies over another"
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"].endswith("."), panel["title"]
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
            unit = (
                panel["options"]["yAxis"]["unit"]
                if panel["type"] == "heatmap"
                else panel["fieldConfig"]["defaults"]["unit"]
            )
            assert unit in UNITS, f"{panel['title']}: {unit}"
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_expressions_are_balanced_and_count_rates_only_of_counters() -> None:
    for where, text in expressions():
        assert all(text.count(a) == text.count(b) for a, b in ("()", "[]", "{}")), where
        for name in re.findall(r"\b(?:rate|increase|changes)\((\w+)", text):
            assert name.endswith(("_total", "_bucket")), f"{where}: {name}"


def test_each_alert_says_what_happened_and_what_to_do() -> None:
    rules = [rule for group in ALERTS for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in ("warning", "critical"), rule
        assert rule["annotations"].keys() == {"summary", "description"}, rule


def test_the_overlay_gives_each_service_a_port_that_prometheus_asks_and_nobody_else_reaches() -> None:
    overlay = yaml.safe_load((ROOT / "deploy" / "monitoring.yml").read_text())["services"]
    base = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    (job,) = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    own = {name for name in overlay if name not in base}
    assert own == {"prometheus", "grafana"}
    for name in overlay.keys() - own:
        kind = name.partition("-")[0]
        assert overlay[name] == {"environment": {f"NARUPA_{kind.upper()}_METRICS_PORT": str(found["port"])}}
    aliases = base["lobby-1"]["networks"]["default"]["aliases"]
    assert {*found["names"], "lobby-1"} == overlay.keys() - own and aliases == ["lobby"]
    for name in own:
        assert re.fullmatch(r"[a-z]+/[a-z]+:v?\d+\.\d+\.\d+", overlay[name]["image"])
        assert all(port.startswith("127.0.0.1:") for port in overlay[name]["ports"])
        for volume in overlay[name]["volumes"]:
            source = volume.partition(":")[0]
            assert not source.startswith("./") or (ROOT / source).is_file(), source
