/** Weights cut to a triangle after the activation: a sigmoid's hidden keys, not those of a softmax. */
import assert from 'node:assert/strict';
import type { Feeds, Sample } from '../../converter/data/tensor.js';
import { inspect, openModel } from '../../converter/index.js';
import { checkModel } from '../../proving/check-model.js';
import { FLOAT, INT64, ModelBuilder } from '../../proving/model-builder.js';
import { Random } from './generator/random.js';

const random = new Random(17);
const [H, D] = [2, 8];

interface Cut {
  readonly activation: 'Sigmoid' | 'Softmax';
  readonly upper: 0 | 1;
  readonly diagonal: number;
  /** The weights are laid out with keys before queries. */
  readonly isTurned?: boolean;
}

function build({ activation, upper, diagonal, isTurned = false }: Cut): Uint8Array {
  const b = new ModelBuilder(17);
  b.input('q', FLOAT, ['batch', H, 'n', D]);
  for (const name of ['k', 'v']) b.input(name, FLOAT, ['batch', H, 'm', D]);
  const perm = [0, 1, 3, 2];
  const product = b.op('MatMul', ['q', b.op('Transpose', ['k'], { perm })]);
  const weights = b.op(activation, [product], activation === 'Softmax' ? { axis: -1 } : {});
  const placed = isTurned ? b.op('Transpose', [weights], { perm }) : weights;
  const cut = b.op('Trilu', [placed, b.scalar(INT64, diagonal)], { upper });
  b.op('MatMul', [isTurned ? b.op('Transpose', [cut], { perm }) : cut, 'v'], {}, 'y');
  b.output('y');
  return b.toBytes();
}

function feeds(rows: number, keys: number): Feeds {
  const numbers = (length: number): Sample => ({
    type: 'float32',
    dims: [2, H, length, D],
    data: Float32Array.from(random.normals(2 * H * length * D)),
  });
  return { q: numbers(rows), k: numbers(keys), v: numbers(keys) };
}

const REPLACED: readonly (Cut & { mask: string })[] = [
  { activation: 'Sigmoid', upper: 0, diagonal: 0, mask: 'causal' },
  { activation: 'Sigmoid', upper: 0, diagonal: 2, mask: 'window' },
  { activation: 'Sigmoid', upper: 1, diagonal: 0, mask: 'window' },
  { activation: 'Sigmoid', upper: 1, diagonal: -2, mask: 'window' },
  { activation: 'Sigmoid', upper: 1, diagonal: 0, isTurned: true, mask: 'causal' },
  { activation: 'Sigmoid', upper: 0, diagonal: 2, isTurned: true, mask: 'window' },
];

const LEFT: readonly Cut[] = [
  { activation: 'Softmax', upper: 0, diagonal: 0 },
  { activation: 'Sigmoid', upper: 0, diagonal: -1 },
  { activation: 'Sigmoid', upper: 1, diagonal: 1 },
];

describe('weights cut to a triangle', () => {
  const named = ({ activation, upper, diagonal, isTurned }: Cut): string =>
    `${activation}, ${upper ? 'upper' : 'lower'} from ${diagonal}${isTurned ? ', turned' : ''}`;
  for (const cut of REPLACED) {
    it(`hide keys: ${named(cut)}`, async () => {
      const bytes = build(cut);
      assert.equal(inspect(openModel(bytes)).sites[0]?.maskText, cut.mask);
      const outcome = await checkModel(bytes, [feeds(6, 6), feeds(4, 7), feeds(7, 4)], { mode: 'fuse' });
      assert.equal(outcome.replaced, 1, outcome.refused.join('; '));
      assert.equal(outcome.failure, null);
      assert.ok(outcome.error! < 1e-5, `differs by ${outcome.error}`);
    });
  }
  for (const cut of LEFT) {
    it(`stay: ${named(cut)}`, () => {
      const { sites, passedOver } = inspect(openModel(build(cut)));
      assert.deepEqual(
        [...sites, ...passedOver].map(({ reason }) => reason),
        ['weights-changed'],
      );
    });
  }
});
