/** The page's side of the browser tests: runs a named scenario and returns its plain result. */

import * as ort from 'onnxruntime-web/webgpu';
import { conformance } from './conformance.js';
import * as sessions from './sessions.js';

ort.env.wasm.wasmPaths = '/';
ort.env.wasm.numThreads = 1;
ort.env.logLevel = 'error';

const SCENARIOS: Readonly<Record<string, (argument: never) => Promise<unknown>>> = {
  conformance,
  ...sessions,
};

Object.assign(globalThis, {
  runScenario: (name: string, argument: never) => {
    const scenario = SCENARIOS[name];
    if (scenario === undefined) throw new Error(`there is no scenario '${name}'`);
    return scenario(argument);
  },
});
