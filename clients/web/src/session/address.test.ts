import { describe, expect, test } from "vitest";
import { asked, inviteUrl, socketUrl, type Place } from "./address.ts";
import { newPlayerId, randomColor } from "./identity.ts";

const place = (href: string): Place => {
  const { protocol, host, hostname, pathname, search } = new URL(href);
  return { protocol, host, hostname, pathname, search };
};

describe("the page's address", () => {
  test.each([
    ["http://lab:38801/", "", ""],
    ["http://lab:38801/?code=7KQM-2XRD&name=Ada", "7KQM-2XRD", "Ada"],
    ["http://lab:38801/7KQM-2XRD", "7KQM-2XRD", ""],
    ["http://lab:38801/?invite=abc", "abc", ""],
    ["http://lab:38801/a/b", "", ""],
  ])("%s", (href, code, name) => {
    expect(asked(place(href))).toEqual({ code, name });
  });
});

describe("the socket's address", () => {
  test("is where the page came from", () => {
    expect(socketUrl(place("http://lab:38801/x?y=z"), "", "", "code")).toBe("ws://lab:38801/");
    expect(socketUrl(place("https://lab/"), "Ada L", "A&B", "code")).toBe("wss://lab/?name=Ada+L&code=A%26B");
    expect(socketUrl(place("https://lab/"), "", "secret", "password")).toBe("wss://lab/?password=secret");
  });

  test("may be another for pages of this machine, and for no others", () => {
    expect(socketUrl(place("http://127.0.0.1:5173/?server=127.0.0.1:4000"), "", "", "code")).toBe("ws://127.0.0.1:4000/");
    expect(socketUrl(place("http://lab/?server=evil.example"), "", "", "code")).toBe("ws://lab/");
    expect(socketUrl(place("http://127.0.0.1.evil.example/?server=x"), "", "", "code")).toBe("ws://127.0.0.1.evil.example/");
  });
});

test("invitations lead to the code's page", () => {
  expect(inviteUrl("http://lab:38801", "")).toBe("http://lab:38801/");
  expect(inviteUrl("http://lab:38801", "a b")).toBe("http://lab:38801/?code=a%20b");
});

test("players are told apart, and have a colour", () => {
  expect(newPlayerId()).toMatch(/^[0-9a-f]{32}$/);
  expect(newPlayerId()).not.toBe(newPlayerId());
  for (const random of [0, 0.3, 0.99, 1]) expect(randomColor(random)).toMatch(/^#[0-9a-f]{6}$/);
});
