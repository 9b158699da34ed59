/** Calls whose tensors are larger than a device can bind at once: the same results in several dispatches. */

import { strict as assert } from 'node:assert';
import type { AttentionInputs } from '../../op/constraints.js';
import { sigmoidAttention } from '../../op/reference.js';
import type { Attributes } from '../../op/schema.js';
import { fromNumbers, sizeOf, toNumbers, type Tensor } from '../../op/tensor.js';
import { SigmoidAttentionKernels } from '../../wgsl/attention.js';
import { sliceCall, type SlicedTensor } from '../../wgsl/plan.js';
import { chooseDriver, createGpu, requestDevice } from './device.js';
import { runOnDevice } from './run.js';

const MAX_BINDING_BYTES = 16_384;

function tensor(dims: readonly number[], phase: number): Tensor {
  return fromNumbers(
    'float',
    dims,
    Float64Array.from({ length: sizeOf(dims) }, (_, i) => 1.5 * Math.sin(12.9898 * i + phase)),
  );
}

const CALLS: Readonly<Record<string, { inputs: AttentionInputs; attributes: Attributes }>> = {
  'batch entries and heads': {
    inputs: { Q: tensor([3, 4, 30, 32], 1), K: tensor([3, 2, 40, 32], 2), V: tensor([3, 2, 40, 32], 3) },
    attributes: { bias: -3 },
  },
  'rows and keys, normalised and causal': {
    inputs: { Q: tensor([1, 2, 200, 32], 1), K: tensor([1, 1, 200, 32], 2), V: tensor([1, 1, 200, 32], 3) },
    attributes: { bias: -3, is_causal: true, normalize: true },
  },
  'rank 3 with a mask': {
    inputs: {
      Q: tensor([2, 60, 128], 1),
      K: tensor([2, 70, 64], 2),
      V: tensor([2, 70, 64], 3),
      attn_mask: tensor([2, 4, 60, 70], 4),
    },
    attributes: { q_num_heads: 4, kv_num_heads: 2, bias: -3 },
  },
  'one row over a past': {
    inputs: {
      Q: tensor([1, 2, 1, 32], 1),
      K: tensor([1, 1, 1, 32], 2),
      V: tensor([1, 1, 1, 32], 3),
      past_key: tensor([1, 1, 300, 32], 4),
      past_value: tensor([1, 1, 300, 32], 5),
    },
    attributes: { bias: -3, is_causal: true },
  },
};

describe('slices of a call', () => {
  it('each fit the limit and together cover every row and key once', () => {
    const q = { batch: 4000, head: 1000, row: 20, size: 20, bytesPerElement: 4 };
    const tensors: SlicedTensor[] = [
      { tensor: q, heads: 'query', along: 'rows' },
      { tensor: { ...q, batch: 1000 }, heads: 'kv', along: 'fresh' },
    ];
    const sizes = { batch: 2, kvHeads: 1, group: 4, queryLength: 50, keyLength: 50, pastLength: 0 };
    const limits = { maxBytes: 1500, alignment: 256 };
    const seen = new Map<string, number>();
    for (const slice of sliceCall({ ...sizes, tensors, partialRowBytes: 8, splits: 1 }, limits))
      for (let b = slice.batch.begin; b < slice.batch.end; b++)
        for (let g = slice.group.begin; g < slice.group.end; g++)
          for (let i = slice.rows.begin; i < slice.rows.end; i++)
            for (const keys of slice.keyChunks) {
              assert.ok((keys.end - keys.begin) * 80 <= limits.maxBytes);
              for (let j = keys.begin; j < keys.end; j++) {
                const key = [b, g, i, j].join();
                seen.set(key, (seen.get(key) ?? 0) + 1);
              }
            }
    assert.equal(seen.size, 2 * 4 * 50 * 50);
    assert.ok([...seen.values()].every((count) => count === 1));
  });

  const choice = chooseDriver(['swiftshader', 'lavapipe']);
  if ('missing' in choice) it.skip(`run on a device (${choice.missing})`);
  else
    for (const [name, { inputs, attributes }] of Object.entries(CALLS))
      it(`of ${name} add up`, async function () {
        this.timeout(60_000);
        const device = await requestDevice(createGpu());
        const kernels = new SigmoidAttentionKernels(device, { maxBindingBytes: MAX_BINDING_BYTES });
        const found = toNumbers((await runOnDevice(kernels, inputs, attributes)).Y);
        const wanted = sigmoidAttention(inputs, attributes).Y.data;
        kernels.destroy();
        device.destroy();
        const worst = found.reduce((most, value, i) => Math.max(most, Math.abs(value - wanted[i]!)), 0);
        const largest = wanted.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
        assert.ok(worst < 2e-6 * largest, `differs by ${worst} of ${largest}`);
      });
});
