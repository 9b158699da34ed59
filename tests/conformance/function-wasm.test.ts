/** The portable function on stock onnxruntime-web's WebAssembly build, which pages without WebGPU run it on. */

import * as ort from 'onnxruntime-web';

import { runCaseOn } from './ort-session.js';
import { runTable } from './runner.js';

// One thread: worker threads would keep the process alive.
ort.env.wasm.numThreads = 1;

runTable({
  name: 'portable function on onnxruntime-web (WebAssembly)',
  supports: () => true,
  run: (testCase, inputs) => runCaseOn(ort, testCase, inputs, { withFunction: true }),
});
