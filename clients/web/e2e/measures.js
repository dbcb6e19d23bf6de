// Runs in a page before its own scripts: counts what it holds on the graphics card and what it is sent, and times its frames.

(() => {
  const held = {};
  const gl = WebGL2RenderingContext.prototype;
  for (const kind of ["Buffer", "Texture", "VertexArray", "Framebuffer", "Program", "Shader"]) {
    const [make, drop] = [gl[`create${kind}`], gl[`delete${kind}`]];
    held[kind] = 0;
    gl[`create${kind}`] = function (...how) {
      held[kind] += 1;
      return make.apply(this, how);
    };
    gl[`delete${kind}`] = function (one) {
      if (one) held[kind] -= 1;
      return drop.call(this, one);
    };
  }

  const received = { messages: 0, bytes: 0 };
  const Socket = window.WebSocket;
  window.WebSocket = class extends Socket {
    constructor(...where) {
      super(...where);
      this.addEventListener("message", ({ data }) => {
        received.messages += 1;
        received.bytes += data.byteLength ?? data.length;
      });
    }
  };

  // Made once, so that measuring adds nothing to the memory that is measured.
  const ROOM = 1 << 15;
  const apart = new Float32Array(ROOM);
  const work = new Float32Array(ROOM);
  let count = 0;
  let last = 0;
  const request = window.requestAnimationFrame.bind(window);
  window.requestAnimationFrame = (run) =>
    request((timeMs) => {
      const began = performance.now();
      run(timeMs);
      const took = performance.now() - began;
      if (timeMs === last) work[Math.max(count - 1, 0)] += took; // another callback of the same frame
      else if (count < ROOM) {
        apart[count] = last > 0 ? timeMs - last : 0;
        work[count] = took;
        count += 1;
        last = timeMs;
      }
    });

  window.measures = {
    held,
    received,
    /** Of each frame since the last call: how long after the one before it, and how long it kept the processor, ms. */
    frames() {
      const taken = { apart: Array.from(apart.subarray(0, count)), work: Array.from(work.subarray(0, count)) };
      count = 0;
      return taken;
    },
  };
})();
