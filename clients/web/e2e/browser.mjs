// Drives a browser for the end-to-end tests: reads a request per line, and answers each with a line of JSON.
//
//     node browser.mjs CHROMIUM SECONDS
//
// A request is {"do": NAME, "page": WHICH, ...}; its answer {"value": ...} or {"error": TEXT}. The browser is closed when the
// requests end, and when it has been there for so many seconds, whatever happens.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const [executablePath, seconds] = [process.argv[2], Number(process.argv[3])];
const FLAGS = [
  "--disable-gpu-sandbox",
  "--use-angle=swiftshader",
  "--enable-unsafe-swiftshader",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--no-first-run",
  // A name of this machine that a browser does not trust without TLS, as it does 127.0.0.1.
  "--host-resolver-rules=MAP lab.example.org 127.0.0.1",
];
const MEASURES = fileURLToPath(new URL("measures.js", import.meta.url));
const ACTION_LIMIT_MS = 20_000;
const LOOK_EVERY_MS = 40;
/** Of what is looked at in a picture: so many cells each way. */
const [COLUMNS, ROWS] = [32, 24];
const resolve = createRequire(import.meta.url).resolve;
const axe = readFileSync(resolve("axe-core/axe.min.js"), "utf8");
/** What puts an emulated headset on a page. It comes from here alone: what is served knows nothing of it. */
const headset = ["iwer/build/iwer.min.js", "./headset.js"].map((name) => readFileSync(resolve(name), "utf8")).join("\n");

const browser = await chromium.launch({ executablePath, headless: true, args: FLAGS, timeout: 60_000 });
const limit = setTimeout(() => end(3), seconds * 1000);
const pages = new Map();
/** Where pictures are looked at. */
const desk = await browser.newPage();

async function end(status) {
  clearTimeout(limit);
  await browser.close();
  process.exit(status);
}

/** What a page has asked for and complained of. */
function watched(page) {
  const log = { requests: [], errors: [], warnings: [] };
  page.on("request", (request) => log.requests.push(request.url()));
  page.on("websocket", (socket) => log.requests.push(socket.url()));
  page.on("pageerror", (error) => log.errors.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error") log.errors.push(message.text());
    if (message.type() === "warning") log.warnings.push(message.text());
  });
  return log;
}

/** What is in a picture, seen coarsely. */
async function seen(png) {
  return desk.evaluate(
    async ([base64, columns, rows]) => {
      const bytes = Uint8Array.from(atob(base64), (each) => each.charCodeAt(0));
      const image = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
      const { width, height } = image;
      const context = new OffscreenCanvas(width, height).getContext("2d");
      context.drawImage(image, 0, 0);
      const { data } = context.getImageData(0, 0, width, height);
      const counts = new Map();
      const cells = new Float64Array(columns * rows);
      for (let at = 0; at < data.length; at += 4) {
        const color = ((data[at] >> 3) << 10) | ((data[at + 1] >> 3) << 5) | (data[at + 2] >> 3);
        counts.set(color, (counts.get(color) ?? 0) + 1);
        const [x, y] = [(at / 4) % width, Math.floor(at / 4 / width)];
        const cell = Math.floor((y * rows) / height) * columns + Math.floor((x * columns) / width);
        cells[cell] += data[at] + data[at + 1] + data[at + 2];
      }
      const pixels = width * height;
      const perCell = (3 * pixels) / cells.length;
      return {
        colors: counts.size,
        covered: 1 - Math.max(...counts.values()) / pixels,
        cells: Array.from(cells, (sum) => Math.round(sum / perCell)),
      };
    },
    [png.toString("base64"), COLUMNS, ROWS],
  );
}

/** Points from the middle outwards. */
function* around(x, y, step, count) {
  for (let at = 0; at < count; at += 1) {
    const [radius, angle] = [step * Math.sqrt(at), at * 2.4];
    yield [Math.round(x + radius * Math.cos(angle)), Math.round(y + radius * Math.sin(angle))];
  }
}

const DRAWN = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(() => done(true)))))";

const ACTIONS = {
  async open({ page: name, url, width = 640, height = 480, touch = false, dark = false, headset: wears = false, trusting = false, measured = false }) {
    const context = await browser.newContext({
      viewport: { width, height },
      hasTouch: touch,
      colorScheme: dark ? "dark" : "light",
      reducedMotion: "reduce",
      ignoreHTTPSErrors: trusting,
    });
    context.setDefaultTimeout(ACTION_LIMIT_MS);
    if (wears) await context.addInitScript(headset);
    if (measured) await context.addInitScript({ path: MEASURES });
    const page = await context.newPage();
    pages.set(name, { page, log: watched(page), cdp: await context.newCDPSession(page) });
    const response = await page.goto(url);
    return { status: response.status(), headers: await response.allHeaders() };
  },
  async leave({ page: name }, { page }) {
    pages.delete(name);
    await page.context().close();
    return null;
  },
  read: ({ script }, { page }) => page.evaluate(script),
  async until({ script, limit_s: limitS }, { page }) {
    const deadline = performance.now() + limitS * 1000;
    for (;;) {
      const value = await page.evaluate(script);
      if (value) return value;
      if (performance.now() > deadline) throw new Error(`not within ${limitS} s: ${script}: ${await page.evaluate("document.body.innerText")}`);
      await sleep(LOOK_EVERY_MS);
    }
  },
  async press({ keys }, { page }) {
    for (const key of keys) await page.keyboard.press(key);
    return null;
  },
  async type({ selector, text }, { page }) {
    await page.fill(selector, text);
    return null;
  },
  async click({ selector }, { page }) {
    await page.click(selector);
    return null;
  },
  async focus({ selector }, { page }) {
    await page.focus(selector);
    return null;
  },
  async choose({ selector, index }, { page }) {
    await page.selectOption(selector, { index });
    return null;
  },
  async mouse({ kind, x, y, key }, { page }) {
    if (key) await page.keyboard.down(key);
    if (kind === "move") await page.mouse.move(x, y);
    else if (kind === "click") await page.mouse.click(x, y);
    else if (kind === "down") await page.mouse.down();
    else await page.mouse.up();
    if (key) await page.keyboard.up(key);
    return null;
  },
  /** Fingers: each step has a kind, and the points that they are at then; the next is sent without waiting for what the last does. */
  async touch({ steps }, { cdp }) {
    const sent = steps.map(({ kind, points }) =>
      cdp.send("Input.dispatchTouchEvent", { type: kind, touchPoints: points.map(([x, y], id) => ({ x, y, id })) }),
    );
    await Promise.all(sent);
    return null;
  },
  /** The page sleeps ("frozen") as one that is hidden for long, or wakes ("active"). */
  async lifecycle({ state }, { cdp }) {
    await cdp.send("Page.setWebLifecycleState", { state });
    return null;
  },
  /** The mouse is moved over the picture until there is an atom under it. */
  async atom({ x, y, step, count, said: words = "document.querySelector('.hovered').textContent" }, { page }) {
    for (const [atX, atY] of around(x, y, step, count)) {
      await page.mouse.move(atX, atY);
      await page.evaluate(DRAWN);
      const said = await page.evaluate(words);
      if (said !== "") return { x: atX, y: atY, said };
    }
    throw new Error(`no atom was found around ${x}, ${y}`);
  },
  async picture({ path, clip }, { page }) {
    await page.evaluate(DRAWN);
    return seen(await page.screenshot({ path: path ?? undefined, clip: clip ?? undefined, animations: "disabled" }));
  },
  /** Where a color is to be seen, give or take: how many pixels of it there are, and the box around them. */
  async spot({ color, within }, { page }) {
    await page.evaluate(DRAWN);
    const png = await page.screenshot({ animations: "disabled" });
    return desk.evaluate(
      async ([base64, [red, green, blue], most]) => {
        const bytes = Uint8Array.from(atob(base64), (each) => each.charCodeAt(0));
        const image = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
        const { width, height } = image;
        const context = new OffscreenCanvas(width, height).getContext("2d");
        context.drawImage(image, 0, 0);
        const { data } = context.getImageData(0, 0, width, height);
        const spot = { count: 0, left: width, top: height, right: -1, bottom: -1 };
        for (let at = 0; at < data.length; at += 4) {
          if (Math.max(Math.abs(data[at] - red), Math.abs(data[at + 1] - green), Math.abs(data[at + 2] - blue)) > most) continue;
          const [x, y] = [(at / 4) % width, Math.floor(at / 4 / width)];
          spot.count += 1;
          spot.left = Math.min(spot.left, x);
          spot.right = Math.max(spot.right, x);
          spot.top = Math.min(spot.top, y);
          spot.bottom = Math.max(spot.bottom, y);
        }
        return spot;
      },
      [png.toString("base64"), color, within],
    );
  },
  log: (_, { log }) => log,
  /** What the browser's own tools for developers answer. */
  tool: ({ method, params = {} }, { cdp }) => cdp.send(method, params),
  /** What axe finds that keeps people out. */
  async axe(_, { page }) {
    await page.evaluate(axe);
    const { violations } = await page.evaluate("axe.run(document, { resultTypes: ['violations'] })");
    return violations
      .filter(({ impact }) => impact === "serious" || impact === "critical")
      .map(({ id, impact, nodes }) => ({ id, impact, where: nodes.map(({ target, failureSummary }) => [target, failureSummary]) }));
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  let answer;
  try {
    answer = { value: (await ACTIONS[request.do](request, pages.get(request.page))) ?? null };
  } catch (error) {
    answer = { error: `${request.do}: ${error instanceof Error ? error.message : error}` };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await end(0);
