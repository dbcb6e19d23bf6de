/** Tells the session where our head and hands are. */

import { type Matrix4, Quaternion, Vector3 } from "three";
import type { AvatarComponent, Session } from "../contracts.ts";
import { RateLimit } from "./rate.ts";
import type { Spaces } from "./spaces.ts";

const IN_HEADSET_PER_SECOND = 15;
const ON_SCREEN_PER_SECOND = 5;

export class OwnAvatar {
  private readonly fast = new RateLimit(IN_HEADSET_PER_SECOND);
  private readonly slow = new RateLimit(ON_SCREEN_PER_SECOND);
  private readonly position = new Vector3();
  private readonly rotation = new Quaternion();
  private readonly scale = new Vector3();

  constructor(
    private readonly session: Session,
    private readonly spaces: Spaces,
  ) {}

  /**
   * To be called once per animation frame; it is told as often as is due.
   *
   * @param head World space; so are the hands, which are null where they are not tracked.
   */
  tick(nowMs: number, inHeadset: boolean, head: Matrix4, left: Matrix4 | null, right: Matrix4 | null): void {
    if (this.session.status.kind !== "open" || this.session.watching) return;
    if (!(inHeadset ? this.fast : this.slow).take(nowMs)) return;
    const components: AvatarComponent[] = [this.component("headset", head)];
    if (left !== null) components.push(this.component("hand.left", left));
    if (right !== null) components.push(this.component("hand.right", right));
    if (components.every(isFinitePlace)) this.session.setAvatar(components);
  }

  private component(name: AvatarComponent["name"], place: Matrix4): AvatarComponent {
    place.decompose(this.position, this.rotation, this.scale);
    this.spaces.toServer(this.position, this.rotation, this.position, this.rotation);
    const { x, y, z } = this.position;
    const { x: rx, y: ry, z: rz, w } = this.rotation;
    return { name, position: [x, y, z], rotation: [rx, ry, rz, w] };
  }
}

function isFinitePlace({ position, rotation }: AvatarComponent): boolean {
  return position.every(Number.isFinite) && rotation.every(Number.isFinite);
}
