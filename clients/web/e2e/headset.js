// Puts an emulated headset on a page, before any script of its own runs: what a Quest 3 offers, as `headset`, whose parts are moved
// and pressed by the tests; everything that its controllers were asked to do, as `pulses`; and the texts that were drawn for whoever
// wears it, as `written`.

globalThis.pulses = [];
globalThis.written = [];
globalThis.headset = new IWER.XRDevice(IWER.metaQuest3, { stereoEnabled: true });
headset.installRuntime({ forceInstall: true });
headset.position.set(0, 1.6, 0);
for (const [side, { inputSource }] of Object.entries(headset.controllers)) {
  for (const actuator of inputSource.gamepad.hapticActuators) {
    actuator.pulse = (strength, ms) => {
      pulses.push({ side, strength, ms });
      return Promise.resolve(true);
    };
  }
}

const { fillText } = CanvasRenderingContext2D.prototype;
CanvasRenderingContext2D.prototype.fillText = function (text, ...place) {
  written.push(text);
  fillText.call(this, text, ...place);
};
