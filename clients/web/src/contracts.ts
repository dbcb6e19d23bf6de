/**
 * What the parts of the viewer know of each other. Each part lives in a folder of its own and imports no other part's modules
 * but through these interfaces; `main.ts` puts them together.
 *
 * Units are those of the session: nm, ps, kJ/mol, kJ/(mol nm), K. Simulation space is right-handed; it hangs in the world
 * with its Y up, as it does for all clients in headsets.
 */

// session/: the one socket, and what has come over it.

/** Everything known at one instant. Arrays are views of received memory: nobody writes to them. */
export interface Frame {
  /** 0: everything before it is void (another run). */
  readonly index: number;
  /** A count of ours that grows with each frame received. */
  readonly serial: number;
  /** Grows whenever topology (elements, bonds, residues, names, count) is another. */
  readonly topologySerial: number;
  readonly particleCount: number;
  /** 3N, nm. */
  readonly positions: Float32Array;
  readonly elements: Uint8Array;
  /** 2B particle indices. */
  readonly bonds: Uint32Array;
  readonly names: readonly string[];
  /** Of each particle, the index of its residue; empty where the source has none. */
  readonly residues: Uint32Array;
  readonly residueNames: readonly string[];
  readonly residueIds: readonly string[];
  readonly residueChains: Uint32Array;
  readonly chainNames: readonly string[];
  /** 9 numbers, rows are the box vectors, nm; null without a box. */
  readonly box: Float32Array | null;
  readonly userForceIndices: Uint32Array;
  /** 3n, kJ/(mol nm). */
  readonly userForces: Float32Array;
  /** All plain values by key: energies, time, temperature, name, exception, server.timestamp. */
  readonly values: Readonly<Record<string, number | string | boolean>>;
  /** When it arrived, performance.now(), ms. */
  readonly receivedAt: number;
}

export type ConnectionStatus =
  | { readonly kind: "idle" }
  | { readonly kind: "connecting"; readonly attempt: number }
  | { readonly kind: "open" }
  /** Lost, and tried again; `reason` is a sentence for a person. */
  | { readonly kind: "lost"; readonly reason: string; readonly retryInMs: number }
  /** Refused or removed for good; `reason` is a sentence for a person. */
  | { readonly kind: "ended"; readonly reason: string };

export interface Interaction {
  readonly particles: readonly number[];
  readonly position: readonly [number, number, number];
  readonly interaction_type: string;
  readonly scale: number;
  readonly mass_weighted: boolean;
  readonly reset_velocities: boolean;
  readonly max_force: number;
  readonly [property: string]: unknown;
}

export interface AvatarComponent {
  readonly name: "headset" | "hand.left" | "hand.right";
  /** Server space: metres, left-handed, Y up (three.js world with z negated). */
  readonly position: readonly [number, number, number];
  /** x, y, z, w in server space (three.js with x and y negated). */
  readonly rotation: readonly [number, number, number, number];
}

export interface Session {
  readonly status: ConnectionStatus;
  /** The newest frame; null before the first. */
  readonly frame: Frame | null;
  /** The shared state by key (avatar.*, interaction.*, scene, selection.*, simulation.*, imd.*, play area, ...). */
  readonly state: ReadonlyMap<string, unknown>;
  /** Our identity in the session: the suffix of our avatar key; kept over reconnections. */
  readonly playerId: string;
  readonly name: string;
  readonly color: string;
  /** Whether what we write is refused: we are let in to watch only. */
  readonly watching: boolean;
  /** From a write to its echo, ms; null before the first. */
  readonly roundTripMs: number | null;
  connect(join: { name: string; color: string; code: string }): void;
  close(): void;
  /** Writes go out at once, merged per animation frame; what cannot go out now is dropped, except removals. */
  write(updates: Record<string, unknown>, removals?: readonly string[]): void;
  /** Where our head and hands are; goes out with our name and color in `avatar.<playerId>`, at most 15 times a second. */
  setAvatar(components: readonly AvatarComponent[]): void;
  /** Rejects with a sentence for a person. */
  run(command: string, args?: Record<string, unknown>): Promise<Record<string, unknown>>;
  on(event: "frame" | "state" | "status", listener: () => void): () => void;
}

// scene/: what is drawn. One class owns the animation frame tick.

export type Representation = "ball and stick" | "liquorice" | "spheres" | "ribbon" | "lines";
export type ColorScheme = "element" | "residue" | "chain" | "uniform";

export interface Hit {
  readonly particle: number;
  /** Where the ray met it, simulation space, nm. */
  readonly point: readonly [number, number, number];
  readonly distance: number;
}

export interface Ray {
  /** Simulation space. */
  readonly origin: readonly [number, number, number];
  readonly direction: readonly [number, number, number];
}

/** Where the camera is, and what it looks at: simulation space, nm. Its Y is up. */
export interface CameraPlace {
  readonly position: readonly [number, number, number];
  readonly target: readonly [number, number, number];
}

export interface SceneView {
  /** Draws the session until disposed. */
  setRepresentation(kind: Representation, colors: ColorScheme): void;
  setSmoothing(on: boolean): void;
  setShowBox(on: boolean): void;
  setTheme(theme: "light" | "dark"): void;
  /** The nearest particle that the ray meets within `slackPx` pixels on screen (or `slackNm` for controllers); null for none. */
  pick(ray: Ray, slackNm: number): Hit | null;
  /** From client coordinates, px, to a ray; and its inverse's depth-keeping partner for dragging. */
  rayAt(clientX: number, clientY: number): Ray;
  /** The point at the depth of `at` (simulation space) under the pointer: dragging moves in the plane that faces the camera. */
  dragPoint(clientX: number, clientY: number, at: readonly [number, number, number]): [number, number, number];
  /** How many nm a pixel spans at the depth of `at`. */
  nmPerPixel(at: readonly [number, number, number]): number;
  /** Where a particle is drawn now (smoothed), simulation space; written to `out` where given, which is then what is returned. */
  positionOf(particle: number, out?: [number, number, number]): [number, number, number];
  /** Particles to be shown highlighted. */
  setHighlight(particles: readonly number[]): void;
  resetCamera(): void;
  /** Where the camera is, or is on its way to. */
  cameraPlace(): CameraPlace;
  /** The camera goes there; places that are not finite, or where it would see nothing, are passed over. */
  moveCamera(place: CameraPlace): void;
  /** Camera controls pay no heed to the pointer while this is set (something is being dragged). */
  setPointerCaptured(captured: boolean): void;
  /** Called once per animation frame, before drawing, with the time in ms. */
  onTick(listener: (timeMs: number) => void): () => void;
  /** Frames per second and time per frame (ms), smoothed. */
  stats(): { fps: number; frameMs: number; particles: number };
  readonly canvas: HTMLCanvasElement;
  /** three.js objects for pulls, avatars and XR to hang things into: simulation space, and the world around it (metres). */
  readonly simulationRoot: import("three").Group;
  readonly worldRoot: import("three").Group;
  readonly renderer: import("three").WebGLRenderer;
  readonly camera: import("three").PerspectiveCamera;
  dispose(): void;
}

// touch/: grabbing, with mouse, touch and XR controllers through one path.

export interface PullSettings {
  law: "spring" | "gaussian" | "constant";
  scale: number;
  /** What is grabbed: the atom, its residue, or the selection that it is in. */
  target: "atom" | "residue" | "selection";
  resetVelocities: boolean;
}

/** What is chosen of pulls in a headset: another law, or so many steps stronger. */
export type PullChoice = { readonly law: PullSettings["law"] } | { readonly stronger: number };

export interface ActivePull {
  readonly id: string;
  readonly particles: readonly number[];
  /** Handle, simulation space. */
  readonly handle: readonly [number, number, number];
  readonly own: boolean;
  readonly owner: string;
}

/** What a click marks at a time. */
export type MarkUnit = "atom" | "residue" | "chain";

/** Marking particles, so that they can be kept as a selection. */
export interface MarkControl {
  /** What is marked, ascending. */
  readonly particles: readonly number[];
  unit: MarkUnit;
  /** Clicks and taps mark, and pull nothing, while this is set; otherwise those with Shift, and long presses, do. */
  active: boolean;
  /** Keyboard: what is under the pointer, or else in the middle, is marked; or not any more, where it was. */
  here(): void;
  set(particles: readonly number[]): void;
  /** Called when any of this is another. */
  on(listener: () => void): () => void;
}

export interface Touch {
  settings: PullSettings;
  readonly pulls: readonly ActivePull[];
  /** Keyboard: the highlighted particle is pulled along by (dx, dy) in the screen's plane, nm. */
  nudge(dx: number, dy: number): void;
  releaseAll(): void;
  /** Particle under the pointer, for the status line; null for none. */
  readonly hovered: number | null;
  on(event: "pulls" | "hover", listener: () => void): () => void;
  readonly marks: MarkControl;
  readonly xr: XrControl;
  dispose(): void;
}

export type XrMode = "immersive-vr" | "immersive-ar";

export interface XrControl {
  /** What a headset here offers; `reason` is a sentence for a person where it offers nothing. */
  support(): Promise<{ readonly vr: boolean; readonly ar: boolean; readonly reason: string }>;
  /** To be called from a click. Rejects with a sentence for a person. */
  enter(mode: XrMode): Promise<void>;
  leave(): void;
  readonly active: XrMode | null;
  /** Whether others see the box moved as it is moved here; off at first. */
  sharePlace: boolean;
  /** Called when `active` or `sharePlace` is another. */
  on(listener: () => void): () => void;
}

// panel/: everything that is HTML: join page, people, host controls, plots, settings, messages.

export interface Panel {
  /** A short sentence for a person, read out by screen readers. */
  announce(text: string): void;
  dispose(): void;
}
