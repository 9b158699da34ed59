/**
 * One portable function for several nodes of a model that differ in attributes, types, masks and optional inputs: each
 * node must give what the reference gives for it alone. And the combinations that one body cannot serve, with the reason.
 */

import assert from 'node:assert/strict';

import * as ort from 'onnxruntime-node';
import proto from 'onnx-proto';

import type { AttentionInputs } from '../../op/constraints.js';
import {
  functionFor,
  FunctionRefusal,
  type FunctionUse,
  neutralInput,
  nodeAttributes,
} from '../../op/function.js';
import { type Attributes, type InputName, INPUTS, OP_TYPE } from '../../op/schema.js';
import { onnxDataType } from '../../op/tensor-proto.js';
import type { Tensor } from '../../op/tensor.js';
import { type Case, type CaseOptions, type CaseSizes, conformanceCase, sizes } from './case.js';
import { inputsOf } from './case-inputs.js';
import { mistakes } from './judge.js';
import { functionUse } from './model.js';
import { feedsFor, readBack, withSession } from './ort-session.js';
import { expectedOutputs } from './tolerance.js';

const { FunctionProto, GraphProto, ModelProto, NodeProto } = proto.onnx;

const DOMAIN = 'portable';
const SIZES = sizes(2, 4, 2, 5, 7, 8, 6);

interface Node {
  readonly testCase: Case;
  readonly inputs: AttentionInputs;
}

function node(options: CaseOptions, caseSizes: CaseSizes = SIZES): Node {
  const testCase = conformanceCase(JSON.stringify(options), caseSizes, options);
  return { testCase, inputs: inputsOf(testCase) };
}

/** The node with neutral constants for the optional inputs that it lacks. */
function completed(
  { testCase, inputs }: Node,
  names: readonly InputName[],
  maskType: 'bool' | 'float' = 'float',
): Node {
  const neutral = names.map((name) => [name, neutralInput(name, testCase.sizes.queryHeads, maskType)]);
  return { testCase, inputs: { ...Object.fromEntries(neutral), ...inputs } };
}

const use = ({ testCase, inputs }: Node): FunctionUse =>
  functionUse({ inputs, attributes: testCase.attributes, presents: testCase.presents });

function sharedModel(nodes: readonly Node[], opset: number): Uint8Array {
  const named = (index: number, name: string): string => `${name}_${index}`;
  const info = (name: string, tensor: Tensor): proto.onnx.IValueInfoProto => ({
    name,
    type: {
      tensorType: {
        elemType: onnxDataType(tensor.type),
        shape: { dim: tensor.dims.map((dimValue) => ({ dimValue })) },
      },
    },
  });
  const outputs = ({ testCase }: Node): string[] =>
    testCase.presents ? ['Y', 'present_key', 'present_value'] : ['Y'];
  const somePresents = nodes.some(({ testCase }) => testCase.presents);
  const callOutputs = (each: Node): string[] =>
    somePresents && !each.testCase.presents ? ['Y', '', ''] : outputs(each);
  const graph = GraphProto.create({
    name: 'shared',
    node: nodes.map((each, index) =>
      NodeProto.create({
        domain: DOMAIN,
        opType: OP_TYPE,
        input: inputNames(each.inputs).map((name) => (name === '' ? '' : named(index, name))),
        output: callOutputs(each).map((name) => (name === '' ? '' : named(index, name))),
        attribute: nodeAttributes(each.testCase.attributes),
      }),
    ),
    input: nodes.flatMap(({ inputs }, index) =>
      Object.entries(inputs).map(([name, tensor]) => info(named(index, name), tensor)),
    ),
    output: nodes.flatMap((each, index) =>
      outputs(each).map((name) => ({
        name: named(index, name),
        type: { tensorType: { elemType: onnxDataType(each.testCase.type) } },
      })),
    ),
  });
  return ModelProto.encode(
    ModelProto.create({
      irVersion: 8,
      opsetImport: [
        { domain: '', version: opset },
        { domain: DOMAIN, version: 1 },
      ],
      functions: [FunctionProto.create({ ...functionFor(nodes.map(use), opset), domain: DOMAIN })],
      graph,
    }),
  ).finish();
}

function inputNames(inputs: AttentionInputs): string[] {
  const names = INPUTS.map(({ name }): string => (inputs[name] === undefined ? '' : name));
  return names.slice(0, names.findLastIndex((name) => name !== '') + 1);
}

async function assertServes(nodes: readonly Node[], opset = 17): Promise<void> {
  const feeds = Object.assign(
    {},
    ...nodes.map(({ inputs }, index) => {
      const renamed = Object.entries(inputs).map(([name, tensor]) => [`${name}_${index}`, tensor]);
      return feedsFor(ort, Object.fromEntries(renamed));
    }),
  );
  await withSession(ort, sharedModel(nodes, opset), async (session) => {
    const results = await session.run(feeds);
    nodes.forEach(({ testCase, inputs }, index) => {
      const output = (name: string): Tensor => readBack(results[`${name}_${index}`]!, testCase.type);
      const outputs = testCase.presents
        ? { Y: output('Y'), present_key: output('present_key'), present_value: output('present_value') }
        : { Y: output('Y') };
      const expected = expectedOutputs(inputs, testCase.attributes);
      assert.deepEqual(mistakes(outputs, expected, testCase.presents), [], `node ${index}`);
    });
  });
}

const withAttributes = (...all: Attributes[]): Node[] => all.map((attributes) => node({ attributes }));

describe('shared function: serves nodes that differ in', () => {
  const cases: [string, Node[], number?][] = [
    ['is_causal', withAttributes({}, { is_causal: true })],
    ['windows', withAttributes({ left_window_size: 1 }, { right_window_size: 0 }, {}, { is_causal: true })],
    ['softcap', withAttributes({ softcap: 2 }, {}, { softcap: 0.5 })],
    ['normalize', withAttributes({ normalize: true, bias: -20 }, {}, { bias: 1 })],
    ['scale', withAttributes({ scale: 0.1 }, { scale: -2 })],
    [
      'bias_mode',
      withAttributes(
        { bias_mode: 'neg_log_total' },
        { bias_mode: 'none', is_causal: true },
        { bias_mode: 'neg_log_visible', is_causal: true },
        { bias_mode: 'neg_log_valid' },
      ),
    ],
    [
      'everything that attributes say',
      withAttributes(
        { bias_mode: 'neg_log_visible', left_window_size: 2, softcap: 1, normalize: true, bias: -3 },
        { right_window_size: 1, bias: 2 },
        { is_causal: true, softcap: 3, bias_mode: 'neg_log_total' },
      ),
    ],
    ['type', [node({ type: 'float' }), node({ type: 'float16', headGain: false })]],
    [
      'type of the mask',
      [
        node({ mask: { type: 'bool', dims: 'QK', hides: 'rows' } }),
        node({ mask: { type: 'float', dims: 'BHQK', hides: 'random' } }),
        node({ type: 'float16', mask: { type: 'T', dims: 'K', hides: 'lowest' } }),
      ],
    ],
    [
      'whether they have a mask of bools',
      [
        node({ mask: { type: 'bool', dims: 'QK', hides: 'rows' } }),
        completed(node({}), ['attn_mask'], 'bool'),
      ],
      11,
    ],
    [
      'whether they have per-head inputs',
      [
        node({ headBias: 'BH', headScale: true, headGain: true, alibi: 'H' }),
        completed(node({}), ['head_bias', 'head_scale', 'head_gain', 'alibi_slopes']),
      ],
      12,
    ],
    [
      'number of heads of rank-3 inputs',
      [
        node({ rank: 3 }),
        node({ rank: 3 }, sizes(1, 6, 6, 3, 4, 4)),
        node({ rank: 3 }, sizes(1, 8, 1, 3, 9, 4)),
      ],
    ],
    ['whether they have present outputs', [node({ presents: true }), node({}), node({ presents: true })]],
    ['sizes, at opset 9', [node({}), node({}, sizes(1, 6, 3, 30, 20, 16))], 9],
    ['sizes, at opset 11', [node({}), node({}, sizes(1, 6, 3, 30, 20, 16))], 11],
  ];
  for (const [name, nodes, opset] of cases) it(name, () => assertServes(nodes, opset));
});

describe('shared function: refuses nodes that', () => {
  const plain = use(node({}));
  const refuse = (uses: FunctionUse[], opset: number, message: string): void => {
    assert.throws(() => functionFor(uses, opset), new FunctionRefusal(message));
  };
  it('do not exist', () => refuse([], 17, 'no SigmoidAttention node is given, at least one is needed.'));
  it('stand in a model of opset 6', () =>
    refuse([plain], 6, "the model's opset is 6, must be 7 or more for the portable function."));
  it('hide keys at opset 8', () =>
    refuse(
      [use(node({ attributes: { is_causal: true } }))],
      8,
      "a node hides keys or counts positions; that needs opset 9 or more, the model's is 8.",
    ));
  it('differ in rank', () =>
    refuse(
      [plain, use(node({ rank: 3 }))],
      17,
      'one node has inputs of rank 4 and another of rank 3; all must have the same rank.',
    ));
  it('differ in optional inputs', () =>
    refuse(
      [plain, use(node({ past: 2 }))],
      17,
      'one node gives the optional inputs none and another past_key, past_value; all must give the same ' +
        '(neutralInput makes constants for those that have a neutral value).',
    ));
  it('differ in whether they give scale', () =>
    refuse(
      [plain, use(node({ attributes: { scale: 1 } }))],
      17,
      'one node gives scale and another does not; all or none must give it.',
    ));
  it('differ in attributes at opset 11', () =>
    refuse(
      [plain, use(node({ attributes: { bias: 1 } }))],
      11,
      "the nodes have different attributes; that needs opset 12 or more, the model's is 11.",
    ));
  it('differ in type at opset 14', () =>
    refuse(
      [plain, use(node({ type: 'float16' }))],
      14,
      "the nodes have several types; that needs opset 15 or more, the model's is 14.",
    ));
  it('mix bool and number masks at opset 13', () =>
    refuse(
      (['bool', 'float'] as const).map((type) => use(node({ mask: { type, dims: 'K', hides: 'none' } }))),
      13,
      "some nodes have bool and some have number masks; that needs opset 15 or more, the model's is 13.",
    ));
  it('are bfloat16 at opset 12', () =>
    refuse([use(node({ type: 'bfloat16' }))], 12, "bfloat16 needs opset 13 or more, the model's is 12."));
  it('lack head counts for rank 3', () =>
    refuse([{ ...plain, rank: 3 }], 17, 'a node with inputs of rank 3 lacks q_num_heads or kv_num_heads.'));
});
