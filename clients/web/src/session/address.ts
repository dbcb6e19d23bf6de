/** Where the session is, as the page's own address tells. */

const LOOPBACK = /^(localhost|127(\.\d+){3}|\[::1\])$/;
/** A path that may be a code, rather than a page of the server's. */
const CODE = /^[A-Za-z0-9_-]{6,200}$/;

export interface Place {
  readonly protocol: string;
  readonly host: string;
  readonly hostname: string;
  readonly pathname: string;
  readonly search: string;
}

/** What the page was opened with: `/CODE`, `?code=CODE`, and `?name=`. */
export function asked(place: Place): { code: string; name: string } {
  const query = new URLSearchParams(place.search);
  const path = place.pathname.replace(/^\/+|\/+$/g, "");
  const given = query.get("code") ?? query.get("invite") ?? query.get("password");
  return { code: given ?? (CODE.test(path) ? path : ""), name: query.get("name") ?? "" };
}

/**
 * The WebSocket of the server that the page came from. A page from this machine may name another, `?server=HOST:PORT`.
 *
 * @param as - What the code is taken for.
 */
export function socketUrl(place: Place, name: string, code: string, as: "code" | "password"): string {
  const other = LOOPBACK.test(place.hostname) ? new URLSearchParams(place.search).get("server") : null;
  const url = new URL(`${place.protocol === "https:" ? "wss" : "ws"}://${other ?? place.host}/`);
  if (name !== "") url.searchParams.set("name", name);
  if (code !== "") url.searchParams.set(as, code);
  return url.href;
}

/** The link with which others come in. */
export function inviteUrl(origin: string, code: string): string {
  return code === "" ? `${origin}/` : `${origin}/?code=${encodeURIComponent(code)}`;
}
