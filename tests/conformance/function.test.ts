/** The portable function, on stock onnxruntime-node's CPU provider, against the whole conformance table. */

import { runTable } from './runner.js';
import { runOnOrtNode } from './stock-session.js';

runTable({
  name: 'portable function on onnxruntime-node',
  supports: () => true,
  run: (testCase, inputs) => runOnOrtNode(testCase, inputs, { withFunction: true }),
});
