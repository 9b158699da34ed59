/**
 * The portable function, on stock onnxruntime-node's CPU provider, against the whole conformance table. It stands under
 * another domain, so that the kernel is never used in its place when a test in the same process has registered it.
 */

import * as ort from 'onnxruntime-node';

import { runTable } from './runner.js';
import { CASES } from './cases.js';
import { runCaseOn } from './ort-session.js';

const FIRST_OPSET = 9;
const LAST_OPSET = 25;
const AT_EVERY_OPSET = [
  'attention_4d_gqa_with_past_and_present',
  'attention_3d_gqa_causal',
  'normalize_bias_40_float16',
  'poison_value_beyond_causal_NaN_float',
  'bias_mode_neg_log_visible_nonpad_window',
  'everything_float',
  'everything_rank3_float',
];

/** Before opset 9 no key can be hidden and no position counted. */
const AT_OPSETS_7_AND_8 = [
  'attention_4d_gqa',
  'attention_3d_gqa_softcap',
  'head_bias_batch',
  'head_scale_softcap',
  'head_gain_normalize',
  'past_rank3_float16',
  'past_normalize',
  'bias_mode_neg_log_total_float',
  'scale_large',
];

runTable({
  name: 'portable function on onnxruntime-node',
  supports: () => true,
  run: (testCase, inputs) => runCaseOn(ort, testCase, inputs, { withFunction: true, domain: 'portable' }),
});

for (const opset of [7, 8])
  runTable(
    {
      name: `portable function at opset ${opset}`,
      supports: () => true,
      run: (testCase, inputs) =>
        runCaseOn(ort, testCase, inputs, { withFunction: true, domain: 'portable', opset }),
    },
    CASES.filter(({ name }) => AT_OPSETS_7_AND_8.includes(name)),
  );

for (let opset = FIRST_OPSET; opset <= LAST_OPSET; opset++)
  runTable(
    {
      name: `portable function at opset ${opset}`,
      supports: () => true,
      run: (testCase, inputs) =>
        runCaseOn(ort, testCase, inputs, { withFunction: true, domain: 'portable', opset }),
    },
    CASES.filter(({ name }) => AT_EVERY_OPSET.includes(name)),
  );
