/**
 * The addon's sessions against stock ones. Both get the same model with a function body; in the stock one's copy the
 * operator has another domain, so that it is never routed.
 */

import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as ort from 'onnxruntime-node';
import '../../op/node/index.js';
import { SigmoidSessionHandler } from '../../op/node/session-handler.js';
import {
  assertClose,
  DEFAULTS,
  encode,
  failure,
  feeds,
  FLOAT16,
  floats,
  type NodeModel,
  qkv,
  QUIET,
} from './models.js';

type Options = ort.InferenceSession.SessionOptions;
type Outcome = { readonly value?: unknown; readonly error?: readonly [name: string, message: string] };

async function outcome(action: () => Promise<unknown>): Promise<Outcome> {
  try {
    return { value: await action() };
  } catch (error) {
    return { error: [(error as Error).constructor.name, (error as Error).message] };
  }
}

/** Node's tensor types, with a value of each; 21 and 22 (uint4, int4) it can only name. */
const SAMPLES: Readonly<Record<number, ort.Tensor>> = {
  1: new ort.Tensor('float32', [1.5, -2], [2]),
  2: new ort.Tensor('uint8', [1, 255], [2]),
  3: new ort.Tensor('int8', [1, -128], [2]),
  4: new ort.Tensor('uint16', [1, 65535], [2]),
  5: new ort.Tensor('int16', [1, -32768], [2]),
  6: new ort.Tensor('int32', [1, -5], [2]),
  7: new ort.Tensor('int64', [1n, -(2n ** 63n)], [2]),
  8: new ort.Tensor('string', ['', 'grüße 😀'], [2]),
  9: new ort.Tensor('bool', [true, false], [2]),
  10: new ort.Tensor('float16', Uint16Array.of(0x3c00, 0xfc00), [2]),
  11: new ort.Tensor('float64', [1.5, Number.MIN_VALUE], [2]),
  12: new ort.Tensor('uint32', [1, 2 ** 32 - 1], [2]),
  13: new ort.Tensor('uint64', [1n, 2n ** 64n - 1n], [2]),
};
/** Where JavaScript has Float16Array, tensors use it, and stock onnxruntime-node 1.30 on Node 24 cannot read it. */
const HAS_FLOAT16_ARRAY = 'Float16Array' in globalThis;
const TYPES = Object.keys(SAMPLES)
  .map(Number)
  .filter((type) => type !== FLOAT16 || !HAS_FLOAT16_ARRAY);

const NAMES = {
  graphInputs: Object.fromEntries(
    TYPES.map((type) => [`in${type}`, { type, dims: [type === 11 ? null : 'S'] }]),
  ),
  graphOutputs: Object.fromEntries(TYPES.map((type) => [`out${type}`, { type, dims: ['S'] }])),
};

/** The operator, and beside it one Identity for each of Node's tensor types. */
const MODEL: NodeModel = {
  inputs: qkv(4, 4),
  outputs: { Y: { type: 1, dims: ['B', 4, 'N', 8] } },
  attributes: DEFAULTS,
  functionFor: { rank: 4, attributes: {} },
  ...NAMES,
  extra: {
    nodes: TYPES.map((type) => ({ opType: 'Identity', input: [`in${type}`], output: [`out${type}`] })),
  },
};
const OURS = encode(MODEL);
const STOCK = encode({ ...MODEL, domain: 'stock.copy' });
const FEEDS: Readonly<Record<string, ort.Tensor>> = {
  ...feeds({ kvHeads: 4 }),
  ...Object.fromEntries(TYPES.map((type) => [`in${type}`, SAMPLES[type]!])),
};

describe('parity with stock onnxruntime-node', () => {
  let ours: ort.InferenceSession;
  let stock: ort.InferenceSession;
  before(async () => {
    ours = await ort.InferenceSession.create(OURS, QUIET);
    stock = await ort.InferenceSession.create(STOCK, QUIET);
    assert.ok((ours as unknown as { handler: unknown }).handler instanceof SigmoidSessionHandler);
    assert.ok(!((stock as unknown as { handler: unknown }).handler instanceof SigmoidSessionHandler));
  });

  it('describes inputs and outputs in the same way', () => {
    assert.deepEqual(ours.inputNames, stock.inputNames);
    assert.deepEqual(ours.outputNames, stock.outputNames);
    assert.deepEqual(ours.inputMetadata, stock.inputMetadata);
    assert.deepEqual(ours.outputMetadata, stock.outputMetadata);
  });

  it('gives the same values of every tensor type', async () => {
    const [a, b] = [await ours.run(FEEDS), await stock.run(FEEDS)];
    assert.deepEqual(Object.keys(a), Object.keys(b));
    assertClose(a.Y!, b.Y!);
    for (const type of TYPES) {
      const [found, expected] = [a[`out${type}`]!, b[`out${type}`]!];
      assert.equal(found.constructor, expected.constructor);
      assert.equal(found.type, expected.type);
      assert.equal(found.data.constructor, expected.data.constructor);
      assert.deepEqual(found.dims, expected.dims);
      assert.deepEqual(found.data, expected.data);
    }
  });

  it('takes and gives float16 in every version of Node', async () => {
    const float16 = { type: FLOAT16, dims: ['S'] };
    const model = encode({
      inputs: qkv(),
      graphInputs: { x: float16 },
      graphOutputs: { y: float16 },
      extra: { nodes: [{ opType: 'Identity', input: ['x'], output: ['y'] }] },
    });
    const session = await ort.InferenceSession.create(model);
    const x = SAMPLES[FLOAT16]!;
    const { y } = await session.run({ ...feeds(), x });
    assert.equal(y!.data.constructor, x.data.constructor);
    assert.deepEqual(y!.data, x.data);
  });

  it('gives only the outputs asked for, and fills the memory given', async () => {
    for (const session of [ours, stock]) {
      assert.deepEqual(Object.keys(await session.run(FEEDS, ['out7'])), ['out7']);
      const Y = new ort.Tensor('float32', new Float32Array(96), [1, 4, 3, 8]);
      const out8 = new ort.Tensor('string', ['a', 'b'], [2]);
      const result = await session.run(FEEDS, { Y, out8, out6: null });
      assert.deepEqual(Object.keys(result).sort(), ['Y', 'out6', 'out8']);
      assert.ok((Y.data as Float32Array).some((value) => value !== 0));
      assert.deepEqual(result.Y!.data, Y.data);
      assert.deepEqual(result.out8!.data, SAMPLES[8]!.data);
    }
  });

  it('takes empty tensors', async () => {
    for (const session of [ours, stock]) {
      const result = await session.run({
        ...FEEDS,
        ...feeds({ kvHeads: 4, queries: 0 }),
        in1: new ort.Tensor('float32', [], [0]),
        in8: new ort.Tensor('string', [], [0]),
        ...Object.fromEntries(
          TYPES.filter((type) => type !== 1 && type !== 8).map((type) => {
            const { type: name, data } = SAMPLES[type]!;
            const empty = (data as Float32Array).slice(0, 0);
            return [`in${type}`, new ort.Tensor(name as 'float32', empty, [0])];
          }),
        ),
      });
      assert.deepEqual(result.Y!.dims, [1, 4, 0, 8]);
      assert.deepEqual(result.out8!.dims, [0]);
    }
  });

  const badFeeds: Record<string, unknown> = {
    'a number': 5,
    'no dims': { type: 'float32', location: 'cpu', data: new Float32Array(1) },
    'a dimension that is no number': {
      dims: ['x'],
      type: 'float32',
      location: 'cpu',
      data: new Float32Array(1),
    },
    'a negative dimension': { dims: [-1], type: 'float32', location: 'cpu', data: new Float32Array(1) },
    'a fractional dimension': { dims: [1.5], type: 'float32', location: 'cpu', data: new Float32Array(1) },
    'no location': { dims: [1], type: 'float32', data: new Float32Array(1) },
    'no type': { dims: [1], location: 'cpu', data: new Float32Array(1) },
    'an unknown type': { dims: [1], type: 'foo', location: 'cpu', data: new Float32Array(1) },
    int4: { dims: [2], type: 'int4', location: 'cpu', data: new Int8Array(1) },
    'an array for numbers': { dims: [1], type: 'float32', location: 'cpu', data: [1] },
    'too little data': { dims: [4], type: 'float32', location: 'cpu', data: new Float32Array(3) },
    'strings that are no array': { dims: [1], type: 'string', location: 'cpu', data: 'a' },
    'a string that is none': { dims: [1], type: 'string', location: 'cpu', data: [1] },
    'another type': new ort.Tensor('int32', [1, 2], [2]),
    'another rank': new ort.Tensor('float32', [1, 2], [1, 2]),
  };
  for (const [name, value] of Object.entries(badFeeds)) {
    it(`refuses in the same words: fed with ${name}`, async () => {
      const given = { ...FEEDS, in1: value } as unknown as typeof FEEDS;
      assert.deepEqual(await outcome(() => ours.run(given)), await outcome(() => stock.run(given)));
      assert.ok((await outcome(() => ours.run(given))).error);
    });
  }

  const badRuns: Record<string, [unknown, unknown?]> = {
    'a severity out of range': [{ logSeverityLevel: 9 }],
    'a severity that is no number': [{ logSeverityLevel: 'x' }],
    'a tag that is no text': [{ tag: 5 }],
    'an output of another rank': [{ out1: new ort.Tensor('float32', [1, 2], [1, 2]) }],
    'an output of another type': [{ out1: new ort.Tensor('int32', [1, 2], [2]) }],
    'an unknown output': [['nothing']],
    null: [null],
  };
  for (const [name, args] of Object.entries(badRuns)) {
    it(`refuses in the same words: run with ${name}`, async () => {
      const run = (session: ort.InferenceSession) => () =>
        (session.run as (...all: unknown[]) => Promise<unknown>)(FEEDS, ...args);
      const found = await outcome(run(ours));
      assert.deepEqual(found, await outcome(run(stock)));
      assert.ok(found.error);
    });
  }

  it('refuses a missing input in the same words, and ignores one too many', async () => {
    const missing = Object.fromEntries(Object.entries(FEEDS).filter(([name]) => name !== 'in7'));
    assert.deepEqual(await outcome(() => ours.run(missing)), await outcome(() => stock.run(missing)));
    await ours.run({ ...FEEDS, more: floats([1]) });
  });

  const badOptions: Record<string, unknown> = {
    'executionProviders text': { executionProviders: 'cpu' },
    'an unknown provider': { executionProviders: ['foo'] },
    'a provider without name': { executionProviders: [{ device: 1 }] },
    'cuda without its library': { executionProviders: ['cuda'] },
    'tensorrt without its library': { executionProviders: [{ name: 'tensorrt', deviceId: 0 }] },
    'an unknown webgpu option': { executionProviders: [{ name: 'webgpu', foo: 1 }] },
    'a webgpu option of another kind': { executionProviders: [{ name: 'webgpu', preferredLayout: 1 }] },
    'webgpu node names that are none': { executionProviders: [{ name: 'webgpu', forceCpuNodeNames: [1] }] },
    'intraOpNumThreads -1': { intraOpNumThreads: -1 },
    'intraOpNumThreads 1.5': { intraOpNumThreads: 1.5 },
    'intraOpNumThreads undefined': { intraOpNumThreads: undefined },
    'interOpNumThreads text': { interOpNumThreads: '1' },
    'an unknown optimisation level': { graphOptimizationLevel: 'most' },
    'an optimisation level that is no text': { graphOptimizationLevel: 1 },
    'enableCpuMemArena 1': { enableCpuMemArena: 1 },
    'enableMemPattern text': { enableMemPattern: 'true' },
    'optimizedModelFilePath 1': { optimizedModelFilePath: 1 },
    'extra text': { extra: 'x' },
    'an extra value that is no text': { extra: { session: { a: 1 } } },
    'an unknown execution mode': { executionMode: 'both' },
    'logId 1': { logId: 1 },
    'logSeverityLevel 5': { logSeverityLevel: 5 },
    'logSeverityLevel text': { logSeverityLevel: '1' },
    'enableProfiling text': { enableProfiling: 'yes' },
    'profiling without a prefix': { enableProfiling: true },
    'profiling with a prefix that is no text': { enableProfiling: true, profileFilePrefix: 5 },
    'externalData text': { externalData: 'x' },
    'external data that is no object': { externalData: ['x'] },
    'external data without a path': { externalData: [{ data: new Uint8Array(1) }] },
    'external data without data': { externalData: [{ path: 'x', data: 'y' }] },
    'an output location that is none': { preferredOutputLocation: 5 },
  };
  for (const [name, options] of Object.entries(badOptions)) {
    it(`refuses in the same words: ${name}`, async () => {
      const create = (model: Uint8Array) => () => ort.InferenceSession.create(model, options as Options);
      const found = await outcome(create(OURS));
      assert.deepEqual(found, await outcome(create(STOCK)));
      assert.ok(found.error);
    });
  }

  const goodOptions: Record<string, Options> = {
    none: {},
    'cpu by name': { executionProviders: ['cpu'] },
    'cpu by object': { executionProviders: [{ name: 'cpu', useArena: false }] },
    'everything off': {
      graphOptimizationLevel: 'disabled',
      enableCpuMemArena: false,
      enableMemPattern: false,
      executionMode: 'parallel',
      intraOpNumThreads: 1,
      interOpNumThreads: 2,
    },
    'everything on': {
      graphOptimizationLevel: 'all',
      enableCpuMemArena: true,
      enableMemPattern: true,
      executionMode: 'sequential',
      logId: 'a',
      logVerbosityLevel: 0,
      extra: { session: { set_denormal_as_zero: '1', intra_op: { allow_spinning: '0' } } },
    },
    'the layout level': { graphOptimizationLevel: 'layout' },
    'empty external data': { externalData: [] },
  };
  for (const [name, options] of Object.entries(goodOptions)) {
    it(`takes the same options: ${name}`, async () => {
      for (const model of [OURS, STOCK]) {
        const session = await ort.InferenceSession.create(model, { ...QUIET, ...options });
        assertClose((await session.run(FEEDS, ['Y'])).Y!, (await stock.run(FEEDS, ['Y'])).Y!);
        await session.release();
      }
    });
  }

  it('ends in the same words', async () => {
    const answers = [];
    for (const model of [OURS, STOCK]) {
      const session = await ort.InferenceSession.create(model);
      await session.release();
      answers.push([
        await outcome(() => session.release()),
        await outcome(() => session.run(FEEDS)),
        await outcome(async () => session.endProfiling()),
        await outcome(async () => session.startProfiling()),
        session.inputNames,
      ]);
    }
    assert.deepEqual(answers[0], answers[1]);
    assert.deepEqual((answers[0]![0] as Outcome).error, ['Error', 'Session already disposed.']);
  });
});

describe('options that show an effect', () => {
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'sigmoid-options-'));
  });
  after(() => rm(folder, { recursive: true }));

  it('profiles, and the kernel stands in the profile', async () => {
    const session = await ort.InferenceSession.create(OURS, {
      enableProfiling: true,
      profileFilePrefix: join(folder, 'profile'),
    });
    await session.run(FEEDS, { tag: 'tagged' });
    session.endProfiling();
    const { readdir } = await import('node:fs/promises');
    const [file] = (await readdir(folder)).filter((name) => name.startsWith('profile'));
    const events = JSON.parse(await readFile(join(folder, file!), 'utf8')) as {
      args?: { op_name?: string };
    }[];
    const operators = events.map(({ args }) => args?.op_name);
    assert.ok(operators.includes('SigmoidAttention'));
    assert.ok(!operators.includes('MatMul'));
  });

  it('writes the optimised model', async () => {
    const optimizedModelFilePath = join(folder, 'optimised.onnx');
    await ort.InferenceSession.create(OURS, { ...QUIET, optimizedModelFilePath });
    assert.ok((await readFile(optimizedModelFilePath)).includes('SigmoidAttention'));
  });

  it('overrides free dimensions', async () => {
    const freeDimensionOverrides = { N: 3, B: 1 };
    const session = await ort.InferenceSession.create(OURS, { freeDimensionOverrides });
    const Q = session.inputMetadata[0]!;
    assert.ok(Q.isTensor);
    assert.deepEqual(Q.shape, [1, 4, 3, 8]);
    const error = await failure(
      ort.InferenceSession.create(encode({ inputs: qkv() }), { freeDimensionOverrides: { N: -1 } }),
    );
    assert.match(error.message, /freeDimensionOverrides\['N'\] must be a non-negative integer, was -1/);
  });

  it('stops a run with the terminate option', async () => {
    const session = await ort.InferenceSession.create(OURS, QUIET);
    await assert.rejects(session.run(FEEDS, { terminate: true }), /terminate flag/);
  });

  it('passes run configuration on', async () => {
    const session = await ort.InferenceSession.create(OURS, QUIET);
    await session.run(FEEDS, {
      extra: { memory: { enable_memory_arena_shrinkage: 'cpu:0' } },
      logVerbosityLevel: 0,
    });
    await assert.rejects(session.run(FEEDS, { extra: { a: 1 } }), /runOptions.extra value must be a string/);
  });
});
