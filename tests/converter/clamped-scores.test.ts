/** A clamp on the scores: bounds that only keep float16 from overflowing change nothing, others do. */
import assert from 'node:assert/strict';
import { inspect, openModel } from '../../converter/index.js';
import { checkModel } from '../../proving/check-model.js';
import { FLOAT, ModelBuilder } from '../../proving/model-builder.js';
import { Random } from './generator/random.js';

const [H, N, D] = [2, 6, 8];

/** Scores clamped to +-`bound`, with a mask of -1e9 before the clamp. */
function build(bound: number): Uint8Array {
  const b = new ModelBuilder(17);
  for (const name of ['q', 'k', 'v']) b.input(name, FLOAT, [1, H, N, D]);
  b.input('mask', FLOAT, [1, 1, 1, N]);
  const product = b.op('MatMul', ['q', b.op('Transpose', ['k'], { perm: [0, 1, 3, 2] })]);
  const masked = b.op('Add', [product, 'mask']);
  const clamped = b.op('Clip', [masked, b.scalar(FLOAT, -bound), b.scalar(FLOAT, bound)]);
  b.op('MatMul', [b.op('Softmax', [clamped], { axis: -1 }), 'v'], {}, 'y');
  b.output('y');
  return b.toBytes();
}

describe('clamped scores', () => {
  it('are replaced where the bounds lie beyond all scores', async () => {
    const random = new Random(5);
    const rows = { type: 'float32', dims: [1, H, N, D] } as const;
    const numbers = (): Float32Array => Float32Array.from(random.normals(H * N * D));
    const feeds = {
      q: { ...rows, data: numbers() },
      k: { ...rows, data: numbers() },
      v: { ...rows, data: numbers() },
      mask: {
        type: 'float32',
        dims: [1, 1, 1, N],
        data: Float32Array.from({ length: N }, (_, i) => (i < 4 ? 0 : -1e9)),
      },
    } as const;
    const outcome = await checkModel(build(50_000), [feeds], { mode: 'faithful' });
    assert.equal(outcome.replaced, 1, outcome.refused.join('; '));
    assert.ok(outcome.error! < 1e-5, `differs by ${outcome.error}`);
  });

  it('stay where the bounds can matter', () => {
    assert.deepEqual(
      inspect(openModel(build(50))).sites.map(({ reason }) => reason),
      ['scores-changed'],
    );
  });
});
