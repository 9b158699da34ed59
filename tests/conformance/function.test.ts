/**
 * The portable function, on stock onnxruntime-node's CPU provider, against the whole conformance table. It stands under
 * another domain, so that the kernel is never used in its place when a test in the same process has registered it.
 */

import * as ort from 'onnxruntime-node';

import { runTable } from './runner.js';
import { runCaseOn } from './ort-session.js';

runTable({
  name: 'portable function on onnxruntime-node',
  supports: () => true,
  run: (testCase, inputs) => runCaseOn(ort, testCase, inputs, { withFunction: true, domain: 'portable' }),
});
