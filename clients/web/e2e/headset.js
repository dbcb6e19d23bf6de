// Puts an emulated headset on a page, before any script of its own runs: what a Quest 3 offers, as `headset`, whose parts are moved
// and pressed by the tests, and everything that its controllers were asked to do, as `pulses`.

globalThis.pulses = [];
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
