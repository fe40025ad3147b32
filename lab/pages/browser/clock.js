// Simulated time, and stacks that can be switched: what `jspi.py` calls `js.clock`. One for the Web Worker and the build.

// Python is slower here than on a server, and busy machines differ: of the time that computing takes a tenth counts.
const PACE = 0.1;

// Runs `action` once the stack that runs has given way, and the browser has had its turn.
const channel = new MessageChannel();
const due = [];
channel.port1.onmessage = () => due.shift()();
const later = (action) => {
  due.push(action);
  channel.port2.postMessage(null);
};

export const possible = () => typeof WebAssembly.Suspending === "function" && typeof WebAssembly.promising === "function";

// `failed` is told what ended a stack that nobody waits for.
export const install = (scope, failed) => {
  const real = performance.now.bind(performance);
  const began = { real: real(), date: Date.now() };
  let skipped = 0;
  const passed = () => (real() - began.real) * PACE + skipped;
  performance.now = () => began.real + passed();
  Date.now = () => began.date + passed();
  scope.clock = {
    skip: (ms) => { skipped += ms; },
    gate: () => {
      const { promise, resolve } = Promise.withResolvers();
      return { promise, resolve: () => later(resolve) };
    },
    spawn: (body) => later(() => body.callPromising().catch(failed).finally(() => body.destroy())),
  };
};
