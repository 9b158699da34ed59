/**
 * The registered CPU kernel, through the package's routing of sessions in onnxruntime-node. The models carry no function
 * body, so that nothing but the kernel can answer.
 */

import * as ort from 'onnxruntime-node';

import { register } from '../../op/node/index.js';
import { runTable } from './runner.js';
import { runCaseOn } from './ort-session.js';

before(() => register());

runTable({
  name: 'CPU kernel',
  supports: () => true,
  run: (testCase, inputs) => runCaseOn(ort, testCase, inputs, { withFunction: false }),
});
