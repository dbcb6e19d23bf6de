/** Grabbing and pulling, with mouse, touch and headsets, and what of it is to be seen of others. */

import type { PullChoice, PullSettings, SceneView, Session, Touch } from "../contracts.ts";
import type { Point, ReadonlyPoint } from "./drag.ts";
import { Grabs, randomId } from "./grabs.ts";
import { Marks } from "./marks.ts";
import { OwnAvatar } from "./own-avatar.ts";
import { People } from "./people.ts";
import { Place } from "./place.ts";
import { Pointers } from "./pointers.ts";
import { Pulls } from "./pulls.ts";
import { Spaces } from "./spaces.ts";
import { Springs } from "./springs.ts";
import { targetOf, unitOf } from "./targets.ts";
import { Xr } from "./xr.ts";

export { xrSupport } from "./headset.ts";

/** Strengths to begin with. With masses as weights, each pulls a carbon atom some tenths of a nanometre off with a few hundred kJ/mol. */
export const DEFAULT_SCALES: Readonly<Record<PullSettings["law"], number>> = { spring: 100, gaussian: 200, constant: 30 };

/** In a headset, lines are as thick as if a pixel were so many metres. */
const METRES_PER_PIXEL = 0.0012;

export interface TouchOptions {
  /** A sentence for a person: what they did had no effect. */
  readonly onRefused?: (sentence: string) => void;
  /** From within a headset, pulls are to be made otherwise. */
  readonly onChoice?: (choice: PullChoice) => void;
}

/** Makes the view's molecule something to be grabbed, until disposed. */
export function createTouch(session: Session, view: SceneView, options: TouchOptions = {}): Touch {
  return new ViewTouch(session, view, options);
}

class ViewTouch implements Touch {
  settings: PullSettings = { law: "spring", scale: DEFAULT_SCALES.spring, target: "atom", resetVelocities: false };
  readonly marks = new Marks(() => this.pointers.markHere());
  readonly xr: Xr;
  private readonly grabs: Grabs;
  private readonly drawn: Pulls;
  private readonly springs: Springs;
  private readonly spaces = new Spaces();
  private readonly place: Place;
  private readonly people: People;
  private readonly self: OwnAvatar;
  private readonly pointers: Pointers;
  private readonly listeners: { readonly event: "pulls" | "hover"; readonly listener: () => void }[] = [];
  private readonly undo: (() => void)[] = [];
  private lastTick = Number.NaN;
  private topology = -1;
  private stateChanged = true;
  private pullsChanged = true;
  private highlightChanged = false;
  private highlighted: readonly number[] = [];

  private readonly positionOf = (particle: number, out: Point): Point => this.view.positionOf(particle, out);
  private readonly nmPerPixel = (at: ReadonlyPoint): number =>
    this.xr.active === null ? this.view.nmPerPixel(at) : METRES_PER_PIXEL / this.view.simulationRoot.matrixWorld.getMaxScaleOnAxis();

  constructor(
    private readonly session: Session,
    private readonly view: SceneView,
    options: TouchOptions,
  ) {
    const settings = () => this.settings;
    const hover = () => {
      this.highlightChanged = true;
      this.emit("hover");
    };
    this.grabs = new Grabs(session, settings, {
      newId: randomId,
      onRefused: (sentence) => {
        options.onRefused?.(sentence);
        this.xr.say(sentence);
      },
      onChange: () => {
        this.pullsChanged = true;
        this.highlightChanged = true;
      },
    });
    this.drawn = new Pulls(session, this.grabs);
    this.springs = new Springs(view.simulationRoot);
    this.people = new People(session, view.worldRoot, this.spaces);
    this.self = new OwnAvatar(session, this.spaces);
    this.pointers = new Pointers(session, view, this.grabs, settings, hover, this.marks);
    this.place = new Place(session, view);
    this.xr = new Xr(session, view, this.grabs, this.place, {
      settings,
      ownColor: () => this.people.colorOf(session.playerId),
      onHover: hover,
      onChoice: options.onChoice ?? (() => {}),
    });
    this.undo.push(
      this.marks.on(() => (this.highlightChanged = true)),
      session.on("state", () => this.onState()),
      session.on("status", () => this.onStatus()),
      session.on("frame", () => this.onFrame()),
      view.onTick((timeMs) => this.tick(timeMs)),
    );
  }

  get pulls(): readonly Pulls["list"][number][] {
    return this.drawn.list;
  }

  get hovered(): number | null {
    return this.pointers.hovered;
  }

  nudge(dx: number, dy: number): void {
    this.pointers.nudge(dx, dy);
  }

  releaseAll(): void {
    this.pointers.releaseAll();
  }

  on(event: "pulls" | "hover", listener: () => void): () => void {
    const entry = { event, listener };
    this.listeners.push(entry);
    return () => {
      const at = this.listeners.indexOf(entry);
      if (at >= 0) this.listeners.splice(at, 1);
    };
  }

  dispose(): void {
    this.xr.dispose();
    this.pointers.dispose();
    for (const undo of this.undo) undo();
    this.springs.dispose();
    this.people.dispose();
    this.view.setHighlight([]);
    this.listeners.length = 0;
  }

  private onState(): void {
    this.grabs.onState();
    this.stateChanged = true;
    this.pullsChanged = true;
  }

  private onStatus(): void {
    if (this.session.status.kind !== "open") this.pointers.releaseAll();
    this.xr.onStatus();
    this.stateChanged = true;
  }

  private onFrame(): void {
    const topology = this.session.frame?.topologySerial ?? -1;
    if (topology === this.topology) return;
    // Indices mean other particles now.
    if (this.topology !== -1) {
      this.pointers.releaseAll();
      this.marks.set([]);
    }
    this.topology = topology;
  }

  private tick(timeMs: number): void {
    const elapsed = Number.isNaN(this.lastTick) ? 0 : timeMs - this.lastTick;
    this.lastTick = timeMs;
    const nowMs = performance.now();
    const { view } = this;
    this.pointers.tick(nowMs);
    if (this.xr.active === null) this.place.stand(elapsed);
    else this.xr.tick(nowMs, elapsed);
    this.grabs.tick(nowMs);
    view.simulationRoot.updateWorldMatrix(true, false);
    const root = view.simulationRoot.matrixWorld;
    if (this.stateChanged) {
      this.stateChanged = false;
      this.people.refresh();
    }
    if (!this.place.ahead(nowMs)) {
      this.spaces.setScene(this.session.state.get("scene"));
      this.spaces.setRoot(root);
    }
    if (this.pullsChanged) {
      this.pullsChanged = false;
      this.drawn.refresh();
      this.emit("pulls");
    }
    this.drawn.tick(elapsed, this.session.frame, this.positionOf);
    this.springs.draw(this.drawn.list, this.nmPerPixel, this.people.colorOf);
    const camera = this.xr.active === null ? view.camera : view.renderer.xr.getCamera();
    this.people.draw(elapsed, camera, this.drawn.list, root);
    const head = this.xr.active === null ? view.camera.matrixWorld : this.xr.head;
    this.self.tick(nowMs, this.xr.active !== null, head, this.xr.hand("left"), this.xr.hand("right"));
    if (this.highlightChanged) this.highlight();
  }

  /** What is marked and what is held is highlighted, and what would be if it were grabbed. */
  private highlight(): void {
    this.highlightChanged = false;
    const particles: number[] = [...this.marks.particles];
    for (const grab of this.grabs.values()) for (const particle of grab.particles) particles.push(particle);
    const { frame, state } = this.session;
    const hover = (particle: number) => {
      if (frame === null) return;
      const { active, unit } = this.marks;
      const would = active ? unitOf(particle, frame, unit) : targetOf(particle, frame, state, this.settings.target).particles;
      for (const one of would) particles.push(one);
    };
    if (this.pointers.hovered !== null && this.grabs.size === 0) hover(this.pointers.hovered);
    this.xr.hovered(hover);
    if (particles.length === this.highlighted.length && particles.every((particle, i) => particle === this.highlighted[i])) return;
    this.highlighted = particles;
    this.view.setHighlight(particles);
  }

  private emit(event: "pulls" | "hover"): void {
    for (const entry of this.listeners) if (entry.event === event) entry.listener();
  }
}
