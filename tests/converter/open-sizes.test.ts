/** Sizes that are open when converting: where they can be read off, and what minima and maxima make of them. */
import assert from 'node:assert/strict';
import { Knowledge } from '../../converter/graph/knowledge.js';
import { openModel } from '../../converter/index.js';
import { checkModel } from '../../proving/check-model.js';
import { FLOAT, INT64, ModelBuilder } from '../../proving/model-builder.js';
import { Random } from './generator/random.js';

const [H, D, AREAS] = [2, 8, 4];

/**
 * Attention within each quarter of an image `[b, 3 H D, h, w]`, as in area attention: what leads to queries, keys and values is
 * cut from one tensor, so no tensor before the site has the height or the width alone as an axis.
 */
function areaAttention(): Uint8Array {
  const b = new ModelBuilder(17);
  b.input('x', FLOAT, ['b', 3 * H * D, 'h', 'w']);
  const channels = 3 * H * D;
  const weights = new Random(8).normals(channels ** 2).map((value) => value / Math.sqrt(channels));
  const mixed = b.op('Conv', ['x', b.constant(FLOAT, [channels, channels, 1, 1], weights)]);
  const [batch, height, width] = [0, 2, 3].map((axis) => b.size('x', axis)) as [string, string, string];
  const pixels = b.op('Concat', [batch, b.ints([3 * H * D]), b.ints([-1])], { axis: 0 });
  const flat = b.op('Transpose', [b.op('Reshape', [mixed, pixels])], { perm: [0, 2, 1] });
  const rows = b.op('Div', [b.op('Mul', [height, width]), b.ints([AREAS])]);
  const shape = b.op('Concat', [b.op('Mul', [batch, b.ints([AREAS])]), rows, b.ints([H]), b.ints([3 * D])], {
    axis: 0,
  });
  const areas = b.op('Transpose', [b.op('Reshape', [flat, shape])], { perm: [0, 2, 3, 1] });
  const [q, k, v] = b.split(areas, 2, [D, D, D]) as [string, string, string];
  const product = b.op('MatMul', [b.op('Transpose', [q], { perm: [0, 1, 3, 2] }), k]);
  const scores = b.op('Mul', [product, b.scalar(FLOAT, D ** -0.5)]);
  const turned = b.op('Transpose', [b.op('Softmax', [scores], { axis: -1 })], { perm: [0, 1, 3, 2] });
  const joined = b.op('Transpose', [b.op('MatMul', [v, turned])], { perm: [0, 3, 1, 2] });
  const rejoined = b.op('Reshape', [
    joined,
    b.op('Concat', [batch, b.op('Mul', [height, width]), b.ints([H * D])], { axis: 0 }),
  ]);
  const whole = b.op('Concat', [batch, height, width, b.ints([H * D])], { axis: 0 });
  b.op('Transpose', [b.op('Reshape', [rejoined, whole])], { perm: [0, 3, 1, 2] }, 'y');
  b.output('y');
  return b.toBytes();
}

const TOKENS = 32;

/** A layer between scatters and gathers a fixed number of tokens; batch and length stay open on both sides of it. */
function tokensTracedAsOneNumber(): Uint8Array {
  const b = new ModelBuilder(17);
  const width = H * D;
  b.input('x', FLOAT, ['batch', 'seq', width]);
  const [batch, length] = [b.size('x', 0), b.size('x', 1)];
  const flat = b.op('Reshape', ['x', b.ints([-1, width])]);
  const traced = b.op('Add', [flat, b.constant(FLOAT, [TOKENS, width], new Float32Array(TOKENS * width))]);
  const shape = b.op('Concat', [batch, length, b.ints([H]), b.ints([D])], { axis: 0 });
  const split = b.op('Reshape', [traced, shape]);
  const q = b.op('Transpose', [split], { perm: [0, 2, 1, 3] });
  const k = b.op('Transpose', [split], { perm: [0, 2, 3, 1] });
  const weights = b.op('Softmax', [b.op('MatMul', [q, k])], { axis: -1 });
  const joined = b.op('Transpose', [b.op('MatMul', [weights, q])], { perm: [0, 2, 1, 3] });
  b.op('Reshape', [joined, b.op('Concat', [batch, length, b.ints([width])], { axis: 0 })], {}, 'y');
  b.output('y');
  return b.toBytes();
}

describe('open sizes', () => {
  it('are not asked for where no tensor before the site tells them', async () => {
    const random = new Random(3);
    const image = (height: number, width: number): { x: object } => {
      const dims = [2, 3 * H * D, height, width];
      const count = dims.reduce((a, c) => a * c, 1);
      return { x: { type: 'float32', dims, data: Float32Array.from(random.normals(count)) } };
    };
    const feeds = [image(4, 6), image(8, 3)] as Parameters<typeof checkModel>[1];
    const outcome = await checkModel(areaAttention(), feeds, { mode: 'faithful' });
    assert.equal(outcome.replaced, 1, outcome.refused.join('; '));
    assert.equal(outcome.failure, null);
    assert.ok(outcome.error! < 1e-5, `differs by ${outcome.error}`);
  });

  it('may vary against each other where only their product is fixed', async () => {
    const random = new Random(4);
    const tokens = (batch: number): { x: object } => {
      const data = Float32Array.from(random.normals(TOKENS * H * D));
      return { x: { type: 'float32', dims: [batch, TOKENS / batch, H * D], data } };
    };
    const feeds = [1, 2, 4].map(tokens) as Parameters<typeof checkModel>[1];
    const outcome = await checkModel(tokensTracedAsOneNumber(), feeds, { mode: 'faithful' });
    assert.equal(outcome.replaced, 1, outcome.refused.join('; '));
    assert.equal(outcome.failure, null);
    assert.ok(outcome.error! < 1e-5, `differs by ${outcome.error}`);
  });

  it('go through minima and maxima', () => {
    const b = new ModelBuilder(17);
    b.input('x', FLOAT, ['b', 'n']);
    const length = b.size('x', 1);
    b.op('Min', [b.scalar(INT64, 64), length, b.scalar(INT64, 1000)], {}, 'least');
    b.op('Max', [b.op('Neg', [length]), b.scalar(INT64, -100)], {}, 'most');
    b.op('Max', [b.scalar(FLOAT, -3), b.scalar(FLOAT, -2)], {}, 'negative');
    for (const name of ['least', 'most']) b.output(name, INT64);
    b.output('negative');
    const model = openModel(b.toBytes());
    const knowledge = new Knowledge(model);
    const values = (name: string): number[] | undefined =>
      knowledge.values(model.graph, name)?.map(({ data }) => data[0]!);
    const lengths = knowledge.sizes(model.graph, 'x')!.at(-1)!;
    assert.ok(lengths.every((size) => size > 1 && size < 64));
    assert.deepEqual(values('least'), lengths);
    assert.deepEqual(
      values('most'),
      lengths.map((size) => -size),
    );
    assert.deepEqual(new Set(values('negative')), new Set([-2]));
  });
});
