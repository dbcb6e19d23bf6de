/** Draws the others: heads, hands and names, and names at the handles of what they pull. */

import {
  BoxGeometry,
  type Camera,
  Color,
  type Group,
  HemisphereLight,
  IcosahedronGeometry,
  type InstancedMesh,
  Matrix4,
  MeshLambertMaterial,
  Quaternion,
  SRGBColorSpace,
  Vector3,
} from "three";
import { avatarOf, PARTS, type Avatar } from "./avatars.ts";
import type { Session } from "../contracts.ts";
import { Label } from "./labels.ts";
import { MAX_PULLS, type Pull } from "./pulls.ts";
import type { Spaces } from "./spaces.ts";
import { instances, put } from "./springs.ts";

/** More are not drawn. */
export const MAX_PEOPLE = 64;
const PREFIX = "avatar.";
/** People glide to where they say they are in about this time, ms. */
const GLIDE_MS = 60;
/** Further than this, in metres, they do not glide but are there. */
const LEAP = 2;
/** Names are this high, metres, or this part of the distance from which they are read, whichever is more. */
const NAME_HEIGHT = 0.06;
const NAME_ANGLE = 0.022;
const NAME_ABOVE = 0.22;
/** Heads are seen at no smaller an angle than that, however small their owners are beside the molecule. */
const HEAD_HEIGHT = 0.115;
const HEAD_ANGLE = 0.035;
const VISOR = new Color(0.08, 0.09, 0.11);
const NOBODY = new Color(0.6, 0.6, 0.6);

class Shown {
  readonly position = new Vector3();
  readonly rotation = new Quaternion();
  there = false;
}

class Person {
  source: unknown = undefined;
  avatar: Avatar | null = null;
  generation = 0;
  readonly color = new Color();
  readonly parts = PARTS.map(() => new Shown());
  readonly label: Label;

  constructor(world: Group) {
    this.label = new Label(world);
  }
}

export class People {
  private readonly people = new Map<string, Person>();
  private list: readonly Person[] = [];
  private generation = 0;
  private readonly own = new Color();
  private readonly light = new HemisphereLight(0xffffff, 0x8a8f99, 2.6);
  private readonly material = new MeshLambertMaterial();
  private readonly heads: InstancedMesh;
  private readonly visors: InstancedMesh;
  private readonly hands: InstancedMesh;
  private readonly meshes: readonly InstancedMesh[];
  private readonly pullLabels: Label[] = [];

  private readonly position = new Vector3();
  private readonly rotation = new Quaternion();
  private readonly eye = new Vector3();
  private readonly size = new Vector3();
  private readonly matrix = new Matrix4();

  /** @param world The world around the simulation, metres. */
  constructor(
    private readonly session: Session,
    private readonly world: Group,
    private readonly spaces: Spaces,
  ) {
    this.heads = instances(new IcosahedronGeometry(1, 3).scale(0.085, 0.115, 0.1), this.material, MAX_PEOPLE);
    this.visors = instances(new BoxGeometry(0.15, 0.07, 0.07).translate(0, 0.02, -0.08), this.material, MAX_PEOPLE);
    this.hands = instances(new IcosahedronGeometry(1, 2).scale(0.028, 0.022, 0.06), this.material, 2 * MAX_PEOPLE);
    this.meshes = [this.heads, this.visors, this.hands];
    world.add(this.light, ...this.meshes);
  }

  /** The color of somebody by their id. */
  readonly colorOf = (owner: string): Color => {
    if (owner === this.session.playerId) return this.own;
    return this.people.get(owner)?.color ?? NOBODY;
  };

  /** To be called when the state is another. */
  refresh(): void {
    this.own.set(this.session.color);
    this.generation += 1;
    let changed = false;
    for (const [key, value] of this.session.state) {
      if (!key.startsWith(PREFIX)) continue;
      const id = key.slice(PREFIX.length);
      if (id === this.session.playerId) continue;
      let person = this.people.get(id);
      if (person === undefined || person.source !== value) {
        const avatar = avatarOf(key, value);
        if (avatar === null || (person === undefined && this.people.size >= MAX_PEOPLE)) continue;
        if (person === undefined) {
          person = new Person(this.world);
          this.people.set(id, person);
          changed = true;
        }
        person.source = value;
        person.avatar = avatar;
        person.color.setRGB(avatar.color[0], avatar.color[1], avatar.color[2], SRGBColorSpace);
        person.label.say(avatar.name, person.color);
      }
      person.generation = this.generation;
    }
    for (const [id, person] of this.people) {
      if (person.generation === this.generation) continue;
      person.label.dispose();
      this.people.delete(id);
      changed = true;
    }
    if (changed) this.list = [...this.people.values()];
  }

  /** To be called once per animation frame, after the spaces and the pulls know where everything is. */
  draw(elapsedMs: number, camera: Camera, pulls: readonly Pull[], simulation: Matrix4): void {
    const share = 1 - Math.exp(-Math.max(0, elapsedMs) / GLIDE_MS);
    this.eye.setFromMatrixPosition(camera.matrixWorld);
    for (const mesh of this.meshes) mesh.count = 0;
    for (const person of this.list) this.drawPerson(person, share);
    for (const mesh of this.meshes) {
      mesh.visible = mesh.count > 0;
      if (!mesh.visible) continue;
      mesh.instanceMatrix.needsUpdate = true;
      mesh.instanceColor!.needsUpdate = true;
    }
    this.drawPullNames(pulls, simulation);
  }

  dispose(): void {
    for (const { label } of this.list) label.dispose();
    for (const label of this.pullLabels) label.dispose();
    this.world.remove(this.light, ...this.meshes);
    for (const mesh of this.meshes) {
      mesh.geometry.dispose();
      mesh.dispose();
    }
    this.material.dispose();
  }

  private drawPerson(person: Person, share: number): void {
    const { avatar, parts, label } = person;
    label.hide();
    for (let i = 0; i < parts.length; i++) {
      const shown = parts[i]!;
      const part = avatar?.parts[i] ?? null;
      if (part === null) {
        shown.there = false;
        continue;
      }
      // They glide in server space, so that they stay where they are while the box is moved here.
      this.position.fromArray(part.position);
      this.rotation.fromArray(part.rotation).normalize();
      const leap = !shown.there || shown.position.distanceTo(this.position) > LEAP;
      shown.there = true;
      shown.position.lerp(this.position, leap ? 1 : share);
      shown.rotation.slerp(this.rotation, leap ? 1 : share);
      const told = this.spaces.toWorld(shown.position, shown.rotation, this.position, this.rotation);
      const scale = Math.max(told, (HEAD_ANGLE * this.eye.distanceTo(this.position)) / HEAD_HEIGHT);
      this.matrix.compose(this.position, this.rotation, this.size.setScalar(scale));
      if (i > 0) {
        put(this.hands, this.matrix, person.color);
        continue;
      }
      put(this.heads, this.matrix, person.color);
      put(this.visors, this.matrix, VISOR);
      label.sprite.position.copy(this.position);
      label.sprite.position.y += NAME_ABOVE * scale;
      this.showAt(label, scale);
    }
  }

  /** Where somebody pulls, their name is by the handle. */
  private drawPullNames(pulls: readonly Pull[], simulation: Matrix4): void {
    let used = 0;
    for (const pull of pulls) {
      if (pull.own || !pull.shown || used >= MAX_PULLS) continue;
      const label = (this.pullLabels[used] ??= new Label(this.world));
      used += 1;
      const person = this.people.get(pull.owner);
      label.say(person?.avatar?.name ?? pull.label, this.colorOf(pull.owner));
      label.sprite.position.fromArray(pull.tip).applyMatrix4(simulation);
      label.sprite.center.set(0.5, -0.4);
      this.showAt(label, 0);
    }
    for (let i = used; i < this.pullLabels.length; i++) this.pullLabels[i]!.hide();
  }

  private showAt(label: Label, scale: number): void {
    label.show(Math.max(NAME_HEIGHT * scale, NAME_ANGLE * this.eye.distanceTo(label.sprite.position)));
  }
}
