/** What is grabbed when a particle is: itself, its residue, or the selection that it is in. */

import type { Frame, MarkUnit, PullSettings } from "../contracts.ts";

/** Servers refuse interactions with more. */
export const MAX_PARTICLES = 100_000;

const SELECTION_PREFIX = "selection.";
const ROOT = "selection.root";
/** Existing clients prefix the same properties with either. */
const PROPERTY_PREFIXES = ["narupa.", "nanover."] as const;

export interface Target {
  /** Ascending, no duplicates; empty where the particle is not to be grabbed. */
  readonly particles: readonly number[];
  /** Whether the selection asks for a reset of velocities on release. */
  readonly resetVelocities: boolean;
}

const NOTHING: Target = { particles: [], resetVelocities: false };

/** What a pull that begins at `particle` acts on. Selections that forbid touching (`interaction.method: none`) are heeded. */
export function targetOf(particle: number, frame: Frame, state: ReadonlyMap<string, unknown>, kind: PullSettings["target"]): Target {
  if (!(particle >= 0 && particle < frame.particleCount)) return NOTHING;
  const selection = selectionOf(particle, state);
  if (selection !== null && propertyOf(selection.value, "interaction.method") === "none") return NOTHING;
  const resetVelocities = selection !== null && propertyOf(selection.value, "interaction.velocity_reset") === true;
  if (kind === "residue") return { particles: residueOf(particle, frame), resetVelocities };
  if (kind === "selection" && selection?.particles) {
    const particles = cleaned(selection.particles, frame.particleCount);
    if (particles.length <= MAX_PARTICLES) return { particles, resetVelocities };
  }
  return { particles: [particle], resetVelocities };
}

/** The particles of a particle's residue; the particle alone where the source knows no residues. */
export function residueOf(particle: number, frame: Frame): number[] {
  const { residues } = frame;
  const residue = residues[particle];
  if (residue === undefined) return [particle];
  const members: number[] = [];
  for (let i = 0; i < residues.length && i < frame.particleCount; i++) if (residues[i] === residue) members.push(i);
  return members.length <= MAX_PARTICLES ? members : [particle];
}

/** The particles that are marked with one: itself, its residue, or its chain; none where there is no such particle. */
export function unitOf(particle: number, frame: Frame, unit: MarkUnit): number[] {
  if (!(particle >= 0 && particle < frame.particleCount)) return [];
  if (unit === "residue") return residueOf(particle, frame);
  return unit === "chain" ? chainOf(particle, frame) : [particle];
}

function chainOf(particle: number, frame: Frame): number[] {
  const { residues, residueChains } = frame;
  const chain = residueChains[residues[particle] ?? -1];
  if (chain === undefined) return residueOf(particle, frame);
  const members: number[] = [];
  for (let i = 0; i < residues.length && i < frame.particleCount; i++) if (residueChains[residues[i]!] === chain) members.push(i);
  return members.length <= MAX_PARTICLES ? members : residueOf(particle, frame);
}

interface Selection {
  readonly value: unknown;
  /** null: all particles. */
  readonly particles: readonly unknown[] | null;
}

/** The smallest selection with the particle in it; one of all particles counts as larger than any list. */
function selectionOf(particle: number, state: ReadonlyMap<string, unknown>): Selection | null {
  let best: Selection | null = null;
  for (const [key, value] of state) {
    if (!key.startsWith(SELECTION_PREFIX)) continue;
    const selected = member(value, "selected");
    const listed = member(selected, "particle_ids");
    const particles = Array.isArray(listed) ? (listed as readonly unknown[]) : null;
    if (particles === null && listed !== null && listed !== undefined) continue;
    if (particles === null && key !== ROOT && selected === undefined) continue;
    if (particles !== null && !particles.includes(particle)) continue;
    if (best === null || sizeOf(particles) < sizeOf(best.particles)) best = { value, particles };
  }
  return best;
}

function sizeOf(particles: readonly unknown[] | null): number {
  return particles === null ? Number.POSITIVE_INFINITY : particles.length;
}

function propertyOf(selection: unknown, name: string): unknown {
  const properties = member(selection, "properties");
  for (const prefix of PROPERTY_PREFIXES) {
    const value = member(properties, prefix + name);
    if (value !== undefined) return value;
  }
  return undefined;
}

function cleaned(particles: readonly unknown[], count: number): number[] {
  const members = new Set<number>();
  for (const one of particles) if (Number.isInteger(one) && (one as number) >= 0 && (one as number) < count) members.add(one as number);
  return [...members].sort((a, b) => a - b);
}

function member(value: unknown, name: string): unknown {
  if (typeof value !== "object" || value === null || !Object.hasOwn(value, name)) return undefined;
  return (value as Record<string, unknown>)[name];
}
