/** Softmax and sigmoid written out by exporters, in spellings that the generator does not have. */
import assert from 'node:assert/strict';
import type { Sample } from '../../converter/data/tensor.js';
import { inspect, openModel } from '../../converter/index.js';
import { checkModel } from '../../proving/check-model.js';
import { FLOAT, ModelBuilder } from '../../proving/model-builder.js';
import { Random } from './generator/random.js';

const [H, N, D] = [2, 7, 8];

interface Spelling {
  readonly name: string;
  readonly kind: 'softmax' | 'sigmoid';
  readonly activate: (b: ModelBuilder, scores: string) => string;
}

const scalar = (b: ModelBuilder, value: number): string => b.scalar(FLOAT, value);

const SPELLINGS: readonly Spelling[] = [
  {
    name: 'powers of two over their sum',
    kind: 'softmax',
    activate: (b, scores) => {
      const powers = b.op('Pow', [scalar(b, 2), b.op('Mul', [scores, scalar(b, Math.LOG2E)])]);
      return b.op('Div', [powers, b.reduce('ReduceSum', powers, 3)]);
    },
  },
  {
    name: 'softplus that lets large values through',
    kind: 'sigmoid',
    activate: (b, scores) => {
      const negated = b.op('Neg', [scores]);
      const isLarge = b.op('Greater', [negated, scalar(b, 20)]);
      const softplus = b.op('Where', [isLarge, negated, b.op('Softplus', [negated])]);
      return b.op('Exp', [b.op('Neg', [softplus])]);
    },
  },
];

function build(activate: Spelling['activate']): Uint8Array {
  const b = new ModelBuilder(18);
  for (const name of ['q', 'k', 'v']) b.input(name, FLOAT, ['batch', H, 'n', D]);
  const product = b.op('MatMul', ['q', b.op('Transpose', ['k'], { perm: [0, 1, 3, 2] })]);
  b.op('MatMul', [activate(b, product), 'v'], {}, 'y');
  b.output('y');
  return b.toBytes();
}

describe('written activations', () => {
  for (const { name, kind, activate } of SPELLINGS) {
    it(`are read: ${name}`, async () => {
      const random = new Random(29);
      const numbers = (): Sample => ({
        type: 'float32',
        dims: [2, H, N, D],
        data: Float32Array.from(random.normals(2 * H * N * D)),
      });
      const bytes = build(activate);
      assert.deepEqual(
        inspect(openModel(bytes)).sites.map((site) => site.kind),
        [kind],
      );
      const feeds = [{ q: numbers(), k: numbers(), v: numbers() }];
      const outcome = await checkModel(bytes, feeds, { mode: kind === 'sigmoid' ? 'fuse' : 'faithful' });
      assert.equal(outcome.replaced, 1, outcome.refused.join('; '));
      assert.ok(outcome.error! < 1e-5, `differs by ${outcome.error}`);
    });
  }
});
