/** Temperature and gain in the weights: where they can go, what the weights become, and where they must stay outside. */
import assert from 'node:assert/strict';
import proto from 'onnx-proto';
import { convert, MemorySource, openModel, type SiteParameters } from '../../converter/index.js';
import { RandomNumbers } from '../../converter/data/random-numbers.js';
import { provenanceOf } from '../../converter/verify/provenance.js';
import { openRuntime } from '../../converter/verify/runtime.js';
import { exchangedOriginal, verify } from '../../converter/verify/verify.js';
import { DistanceMeter } from '../../converter/verify/compare.js';
import { numberToFloat16 } from '../../op/half.js';
import { attentionModel, withExternalData } from '../cli/small-models.js';

type Attribute = proto.onnx.IAttributeProto;

const [BATCH, LENGTH, HEADS, SIZE] = [2, 5, 4, 4];
const WIDTH = HEADS * SIZE;

interface Variant {
  /** How queries, keys and values come from `x`. */
  readonly projection?: 'MatMul' | 'MatMul, Add' | 'Gemm' | 'Split' | 'Slice' | 'Gather';
  readonly opset?: number;
  readonly kvHeads?: number;
  readonly rotary?: 'written out' | 'an operator';
  /** A norm of the queries, behind their projection. */
  readonly norm?: boolean;
  /** The weight of the values is read by another product, or the queries are an output. */
  readonly shared?: 'value weight' | 'query';
  readonly constantNodes?: boolean;
  readonly half?: boolean;
}

/** Self-attention over `x` `[2, 5, 16]` with weights `wq wk wv` or `w`, and biases `bq bk bv` or `b`. */
function model({
  projection = 'MatMul',
  opset = 17,
  kvHeads = HEADS,
  rotary,
  norm,
  shared,
  constantNodes,
  half,
}: Variant): Uint8Array {
  const random = new RandomNumbers(3);
  const type = half ? 10 : 1;
  const node: proto.onnx.INodeProto[] = [];
  const initializer: proto.onnx.ITensorProto[] = [];
  const output = ['y'];
  const add = (opType: string, input: string[], name: string, attribute: Attribute[] = []): string => {
    node.push({ opType, name, input, output: [name], attribute });
    return name;
  };
  const weight = (name: string, dims: number[]): string => {
    const count = dims.reduce((a, b) => a * b, 1);
    const values = Float32Array.from({ length: count }, () => random.normal() / 2);
    const raw = half ? Uint16Array.from(values, numberToFloat16) : values;
    const tensor = { name, dims, dataType: type, rawData: new Uint8Array(raw.buffer) };
    if (!constantNodes) initializer.push(tensor);
    else
      node.push({ opType: 'Constant', output: [name], attribute: [{ name: 'value', type: 4, t: tensor }] });
    return name;
  };
  const ints = (values: number[]): string => {
    const name = `ints_${values.join('_')}`;
    if (initializer.some((tensor) => tensor.name === name)) return name;
    const rawData = new Uint8Array(BigInt64Array.from(values, BigInt).buffer);
    initializer.push({ name, dims: [values.length], dataType: 7, rawData });
    return name;
  };
  const axis = (at: number): Attribute => ({ name: 'axis', type: 2, i: at });
  const perm = (...order: number[]): Attribute[] => [{ name: 'perm', type: 7, ints: order }];
  const kvWidth = kvHeads * SIZE;
  const widths = [WIDTH, kvWidth, kvWidth];
  const heads = (name: string, rows: string, count: number): string =>
    add(
      'Transpose',
      [add('Reshape', [rows, ints([BATCH, LENGTH, count, SIZE])], `${name}_apart`)],
      `${name}_heads`,
      perm(0, 2, 1, 3),
    );
  const whole = (width: number): string =>
    add('Add', [add('MatMul', ['x', weight('w', [WIDTH, width])], 'product'), weight('b', [width])], 'rows');
  let parts: string[];
  if (projection === 'Gather') {
    const apart = add('Reshape', [whole(3 * WIDTH), ints([BATCH, LENGTH, 3, HEADS, SIZE])], 'apart');
    const turned = add('Transpose', [apart], 'turned_parts', perm(2, 0, 3, 1, 4));
    parts = ['q', 'k', 'v'].map((name, i) => {
      const index = `index_${i}`;
      const rawData = new Uint8Array(BigInt64Array.of(BigInt(i)).buffer);
      initializer.push({ name: index, dims: [], dataType: 7, rawData });
      return add('Gather', [turned, index], `${name}_heads`, [axis(0)]);
    });
  } else if (projection === 'Split' || projection === 'Slice') {
    const rows = whole(WIDTH + 2 * kvWidth);
    const names = ['q', 'k', 'v'].map((name) => `${name}_rows`);
    if (projection === 'Split') {
      const given = opset >= 13;
      node.push({
        opType: 'Split',
        name: 'split',
        input: given ? [rows, ints(widths)] : [rows],
        output: names,
        attribute: given ? [axis(-1)] : [axis(-1), { name: 'split', type: 7, ints: widths }],
      });
    } else {
      let start = 0;
      for (const [i, name] of names.entries()) {
        add('Slice', [rows, ints([start]), ints([start + widths[i]!]), ints([2])], name);
        start += widths[i]!;
      }
    }
    parts = ['q', 'k', 'v'].map((name, i) => heads(name, names[i]!, widths[i]! / SIZE));
  } else {
    parts = ['q', 'k', 'v'].map((name, i) => {
      const width = widths[i]!;
      let rows: string;
      if (projection === 'Gemm') {
        const flat = add('Reshape', ['x', ints([BATCH * LENGTH, WIDTH])], `${name}_flat`);
        rows = add(
          'Gemm',
          [flat, weight(`w${name}`, [width, WIDTH]), weight(`b${name}`, [width])],
          `${name}_rows`,
          [{ name: 'transB', type: 2, i: 1 }],
        );
      } else {
        rows = add('MatMul', ['x', weight(`w${name}`, [WIDTH, width])], `${name}_product`);
        if (projection === 'MatMul, Add')
          rows = add('Add', [weight(`b${name}`, [width]), rows], `${name}_rows`);
      }
      return heads(name, rows, width / SIZE);
    });
  }
  let [q, k, v] = parts as [string, string, string];
  if (norm) {
    const square = add('Mul', [q, q], 'square');
    const mean = add('ReduceMean', [square], 'mean', [{ name: 'axes', type: 7, ints: [-1] }]);
    q = add('Div', [q, add('Sqrt', [mean], 'root')], 'normed');
  }
  if (rotary === 'an operator') {
    const rawData = new Uint8Array(BigInt64Array.of(0n).buffer);
    initializer.push({ name: 'first', dims: [1], dataType: 7, rawData });
    const [cos, sin] = [weight('cos', [LENGTH, SIZE / 2]), weight('sin', [LENGTH, SIZE / 2])];
    [q, k] = [q, k].map((name) => {
      node.push({
        opType: 'RotaryEmbedding',
        domain: 'com.microsoft',
        name: `${name}_turned`,
        input: [name, 'first', cos, sin],
        output: [`${name}_turned`],
      });
      return `${name}_turned`;
    }) as [string, string];
  } else if (rotary) {
    const half = SIZE / 2;
    const [cos, sin] = [weight('cos', [1, 1, LENGTH, SIZE]), weight('sin', [1, 1, LENGTH, SIZE])];
    const turn = (name: string): string => {
      const low = add('Slice', [name, ints([0]), ints([half]), ints([3])], `${name}_low`);
      const high = add('Slice', [name, ints([half]), ints([SIZE]), ints([3])], `${name}_high`);
      const other = add('Concat', [add('Neg', [high], `${name}_minus`), low], `${name}_other`, [axis(-1)]);
      return add(
        'Add',
        [add('Mul', [name, cos], `${name}_cos`), add('Mul', [other, sin], `${name}_sin`)],
        `${name}_turned`,
      );
    };
    [q, k] = [turn(q), turn(k)];
  }
  if (kvHeads < HEADS) {
    const repeat = (name: string): string => {
      const group = HEADS / kvHeads;
      const apart = add('Reshape', [name, ints([BATCH, kvHeads, 1, LENGTH, SIZE])], `${name}_single`);
      const wide = add('Expand', [apart, ints([BATCH, kvHeads, group, LENGTH, SIZE])], `${name}_wide`);
      return add('Reshape', [wide, ints([BATCH, HEADS, LENGTH, SIZE])], `${name}_repeated`);
    };
    [k, v] = [repeat(k), repeat(v)];
  }
  if (shared === 'query') output.push(q);
  const scores = add(
    'Mul',
    [add('MatMul', [q, add('Transpose', [k], 'k_turned', perm(0, 1, 3, 2))], 'scores'), weight('scale', [])],
    'scaled',
  );
  const weights = add('Softmax', [scores], 'weights', [axis(3)]);
  const turned = add('Transpose', [add('MatMul', [weights, v], 'attended')], 'turned', perm(0, 2, 1, 3));
  const joined = add('Reshape', [turned, ints([BATCH, LENGTH, WIDTH])], 'joined');
  const ending = shared === 'value weight' ? add('MatMul', ['x', 'wv'], 'second') : 'x';
  add('Add', [joined, ending], 'y');
  const info = (name: string, dims: number[]): proto.onnx.IValueInfoProto => ({
    name,
    type: { tensorType: { elemType: type, shape: { dim: dims.map((dimValue) => ({ dimValue })) } } },
  });
  return proto.onnx.ModelProto.encode({
    irVersion: 8,
    opsetImport: [
      { domain: '', version: opset },
      { domain: 'com.microsoft', version: 1 },
    ],
    graph: {
      name: 'folding',
      node,
      initializer,
      input: [info('x', [BATCH, LENGTH, WIDTH])],
      output: output.map((name) =>
        info(name, name === 'y' ? [BATCH, LENGTH, WIDTH] : [BATCH, HEADS, LENGTH, SIZE]),
      ),
    },
  }).finish();
}

const TEMPERATURE = [0.75, 1.5, 1.25, 0.3];
const GAIN = [1.25, -0.5, 2.5, 0.7];
const perChannel = (step: number): number[][] =>
  TEMPERATURE.map((_, head) =>
    Array.from({ length: SIZE }, (__, i) => Math.sin(step * (head * SIZE + i + 1))),
  );
const FITTED: SiteParameters = {
  biasMode: 'neg_log_total',
  headBias: [0.5, -0.25, 0, 1],
  headScale: TEMPERATURE,
  headGain: GAIN,
};
const TERMS: SiteParameters = {
  ...FITTED,
  rowQuery: perChannel(1),
  rowMoments: TEMPERATURE.map((value) => [value - 1, 0.25 * value, -0.5]),
  valueShift: perChannel(2),
  outputShift: perChannel(3),
};

function stored(bytes: Uint8Array, name: string): Float32Array {
  const tensor = proto.onnx.ModelProto.decode(bytes).graph!.initializer!.find((own) => own.name === name)!;
  return new Float32Array(Uint8Array.from(tensor.rawData!).buffer);
}

/** Converts, proves the structure against the original with its activation exchanged, and looks at the operator's node. */
async function folded(
  bytes: Uint8Array,
  parameters: SiteParameters,
): Promise<{
  readonly converted: Uint8Array;
  readonly inputs: readonly string[];
  readonly reasons: readonly (string | null)[];
}> {
  const original = { model: openModel(bytes), folder: '.' };
  const made = convert(original.model, { mode: 'calibrated', parameters: () => parameters });
  assert.equal(made.replaced.length, 1, made.refused[0]?.detail);
  const converted = made.toBytes();
  const result = await verify(
    {
      original,
      converted: { model: openModel(converted), folder: '.' },
      mode: 'calibrated',
      replaced: made.replaced,
      parametersOf: () => parameters,
    },
    await openRuntime(),
  );
  assert.ok(result.passed, result.verdict);
  assert.deepEqual(result.notes, []);
  const isHalf = made.replaced[0]!.site.dtype === 'float16';
  const distance = result.structure[0]!.maxRelative;
  assert.ok(distance < (isHalf ? 5e-3 : 1e-5), String(distance));
  const { inputs, foldings } = made.replaced[0]!;
  return { converted, inputs: Object.keys(inputs), reasons: foldings.map(({ reason }) => reason) };
}

function columns(values: Float32Array, width: number, start: number, factors: readonly number[]): number[] {
  return Array.from(values, (value, i) => {
    const factor = factors[Math.floor(((i % width) - start) / SIZE)];
    return factor === undefined ? value : Math.fround(value * Math.fround(factor));
  });
}

describe('folding of temperature and gain', function () {
  this.timeout(60_000);
  const ways: readonly [string, Variant][] = [
    ['MatMul', {}],
    ['MatMul and Add', { projection: 'MatMul, Add' }],
    ['Gemm with transB', { projection: 'Gemm' }],
    ['one weight and Split', { projection: 'Split' }],
    ['one weight and Split, opset 12', { projection: 'Split', opset: 12 }],
    ['one weight and Slice', { projection: 'Slice' }],
    ['one weight, Reshape, Transpose and Gather', { projection: 'Gather' }],
    ['weights in Constant nodes', { projection: 'MatMul, Add', constantNodes: true }],
    ['rotary positions', { projection: 'MatMul, Add', rotary: 'written out' }],
    ['an operator for rotary positions', { rotary: 'an operator' }],
  ];
  for (const [name, variant] of ways) {
    for (const [terms, parameters] of [
      ['', FITTED],
      [', with row terms', TERMS],
    ] as const) {
      it(`goes through ${name}${terms}`, async () => {
        const { inputs, reasons } = await folded(model(variant), parameters);
        assert.deepEqual(reasons, [null, null]);
        assert.ok(!inputs.includes('head_scale') && !inputs.includes('head_gain'), inputs.join());
      });
    }
  }

  it('holds at every length', () => {
    const { replaced } = convert(openModel(attentionModel({ layers: 2, heads: 4, causal: true })), {
      mode: 'calibrated',
      parameters: () => TERMS,
    });
    assert.deepEqual(
      replaced.map(({ foldings }) => foldings.map(({ weights }) => weights)),
      [
        [['wq_0'], ['wv_0']],
        [['wq_1'], ['wv_1']],
      ],
    );
  });

  it('multiplies columns of a head, and nothing else', async () => {
    const bytes = model({ projection: 'MatMul, Add' });
    const { converted } = await folded(bytes, FITTED);
    const expect = (name: string, factors: readonly number[]): void =>
      assert.deepEqual([...stored(converted, name)], columns(stored(bytes, name), WIDTH, 0, factors), name);
    expect('wq', TEMPERATURE);
    expect('bq', TEMPERATURE);
    expect('wv', GAIN);
    expect('bv', GAIN);
    expect('wk', []);
    expect('bk', []);
  });

  it('multiplies the part of a fused weight that is the values, with shared heads', async () => {
    const bytes = model({ projection: 'Split', kvHeads: 2 });
    const { converted, reasons } = await folded(bytes, { ...FITTED, headGain: [2, 2, 0.7, 0.7] });
    assert.deepEqual(reasons, [null, null]);
    const width = 2 * WIDTH;
    const queries = Float32Array.from(columns(stored(bytes, 'w'), width, 0, TEMPERATURE));
    assert.deepEqual([...stored(converted, 'w')], columns(queries, width, WIDTH + 2 * SIZE, [2, 0.7]));
  });

  it('multiplies rows of a Gemm with transB', async () => {
    const bytes = model({ projection: 'Gemm' });
    const { converted } = await folded(bytes, FITTED);
    const expected = Array.from(stored(bytes, 'wv'), (value, i) =>
      Math.fround(value * Math.fround(GAIN[Math.floor(i / (WIDTH * SIZE))]!)),
    );
    assert.deepEqual([...stored(converted, 'wv')], expected);
  });

  const kept: readonly [string, Variant, SiteParameters, readonly (RegExp | null)[]][] = [
    ['a weight that another product reads', { shared: 'value weight' }, FITTED, [null, /'wv' is shared/]],
    ['queries that are an output', { shared: 'query' }, FITTED, [/'q_heads' is shared/, null]],
    ['a norm of the queries', { norm: true }, FITTED, [/'q_heads' is shared/, null]],
    ['unequal gains of heads that share values', { kvHeads: 2 }, FITTED, [null, /is shared by/]],
    ['the mean of values', {}, { ...TERMS, centreValues: true }, [null, /mean of the values/]],
    ['float16 that would be rounded', { half: true }, FITTED, [/half precision/, /half precision/]],
  ];
  for (const [name, variant, parameters, expected] of kept) {
    it(`leaves the factor outside: ${name}`, async () => {
      const bytes = model(variant);
      const { inputs, reasons, converted } = await folded(bytes, parameters);
      expected.forEach((pattern, i) => {
        if (pattern === null) assert.equal(reasons[i], null);
        else assert.match(String(reasons[i]), pattern);
      });
      assert.equal(inputs.includes('head_scale'), expected[0] !== null);
      assert.equal(inputs.includes('head_gain'), expected[1] !== null);
      if (expected[0] !== null && !variant.half)
        assert.deepEqual(stored(converted, 'wq'), stored(bytes, 'wq'));
      if (expected[1] !== null && !variant.half)
        assert.deepEqual(stored(converted, 'wv'), stored(bytes, 'wv'));
    });
  }

  it('takes powers of two into float16', async () => {
    const { reasons } = await folded(model({ half: true }), {
      ...FITTED,
      headScale: [2, 1, 4, 2],
      headGain: [2, 1, -2, 4],
    });
    assert.deepEqual(reasons, [null, null]);
  });

  for (const [name, variant] of ways) {
    it(`saves the two products of the form in standard operators: ${name}`, async () => {
      const bytes = model(variant);
      const original = { model: openModel(bytes), folder: '.' };
      const made = convert(original.model, { mode: 'calibrated', parameters: () => TERMS });
      const converted = { model: openModel(made.toBytes()), folder: '.' };
      const request = { original, converted, mode: 'calibrated' as const, replaced: made.replaced };
      const runtime = await openRuntime();
      const plain = await exchangedOriginal({ ...request, parametersOf: () => TERMS }, runtime);
      const unfolded = await exchangedOriginal(
        {
          ...request,
          replaced: made.replaced.map((own) => ({ ...own, foldings: [] })),
          parametersOf: () => TERMS,
        },
        runtime,
      );
      const products = (file: Uint8Array): number =>
        openModel(file).graph.nodes.filter(({ opType }) => opType === 'Mul').length;
      assert.equal(products(plain), products(unfolded) - 2);
      const random = new RandomNumbers(8);
      const data = Float32Array.from({ length: BATCH * LENGTH * WIDTH }, () => random.normal());
      const feeds = { x: { type: 'float32' as const, dims: [BATCH, LENGTH, WIDTH], data } };
      const outputs = [];
      for (const file of [plain, unfolded, made.toBytes()]) {
        const session = await runtime.open(file);
        outputs.push((await session.run(feeds))['y']!);
        await session.close();
      }
      for (const other of outputs.slice(1)) {
        const meter = new DistanceMeter('y');
        meter.add(outputs[0]!, other);
        assert.ok(meter.result().maxRelative < 1e-5, String(meter.result().maxRelative));
      }
    });
  }

  it('copies external weights that are small', async () => {
    const { model: bytes, data } = withExternalData(model({}), 'weights.bin');
    const opened = openModel(bytes, (location) =>
      location === 'weights.bin' ? new MemorySource(data) : null,
    );
    const made = convert(opened, { mode: 'calibrated', parameters: () => FITTED });
    const converted = made.toBytes();
    const expected = (await folded(model({}), FITTED)).converted;
    for (const name of ['wq', 'wv']) assert.deepEqual(stored(converted, name), stored(expected, name));
    const [key] = proto.onnx.ModelProto.decode(converted).graph!.initializer!.filter(
      ({ name }) => name === 'wk',
    );
    assert.equal(key!.externalData!.length, 3);
  });

  it('is read back from a converted file', () => {
    const original = openModel(model({}));
    const made = convert(original, { mode: 'calibrated', parameters: () => TERMS });
    const [read] = [...provenanceOf(original, openModel(made.toBytes()))!.parameters.values()];
    assert.deepEqual(read!.headScale, TEMPERATURE.map(Math.fround));
    assert.deepEqual(read!.headGain, GAIN.map(Math.fround));
  });
});
