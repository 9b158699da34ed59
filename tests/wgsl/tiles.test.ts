/** The tiles that GPUs get, on a software adapter: the same results as the reference for calls that reach each of them. */

import { strict as assert } from 'node:assert';
import { sigmoidAttention } from '../../op/reference.js';
import type { Attributes } from '../../op/schema.js';
import { fromNumbers, sizeOf, toNumbers, type Tensor } from '../../op/tensor.js';
import { SigmoidAttentionKernels } from '../../wgsl/attention.js';
import { type Adapter, chooseVariant } from '../../wgsl/variants.js';
import { chooseDriver, createGpu, requestDevice } from './device.js';
import { runOnDevice } from './run.js';

const LEAST: Adapter = {
  workgroupBytes: 16_384,
  workgroupInvocations: 256,
  isSoftware: false,
  subgroupSize: 0,
  hasMatrices: false,
};
const LARGE: Adapter = { ...LEAST, workgroupBytes: 32_768 };

const CALLS = [
  { adapter: LARGE, heads: 128, length: 70, headSize: 64, attributes: { is_causal: true, bias: -4 } },
  { adapter: LARGE, heads: 2, length: 150, headSize: 64, attributes: { normalize: true, bias: -4 } },
  { adapter: LARGE, heads: 2, length: 150, headSize: 128, attributes: { left_window_size: 40, bias: -4 } },
  { adapter: LARGE, heads: 128, length: 70, headSize: 128, attributes: { bias: -6 } },
  { adapter: LEAST, heads: 3, length: 70, headSize: 128, attributes: { is_causal: true, bias: -4 } },
] as const;

function tensor(dims: readonly number[], phase: number): Tensor {
  return fromNumbers(
    'float',
    dims,
    Float64Array.from({ length: sizeOf(dims) }, (_, i) => 1.5 * Math.sin(12.9898 * i + phase)),
  );
}

describe('tiles for GPUs', () => {
  it('fit the least limits of WebGPU where a device has no more', () => {
    for (const headSize of [8, 64, 80, 128, 256]) {
      const problem = {
        batch: 1,
        queryHeads: 8,
        kvHeads: 8,
        queryLength: 512,
        keyLength: 512,
        headSize,
        isFloat16: false,
        normalize: false,
      };
      const { kernel, tile } = chooseVariant({ ...problem, valueHeadSize: headSize }, LEAST);
      assert.equal(kernel, 'prefill');
      assert.ok('columnThreads' in tile && tile.rowThreads * tile.columnThreads <= 256);
    }
  });

  it('are refused by name where a device has less', () => {
    const problem = {
      batch: 1,
      queryHeads: 1,
      kvHeads: 1,
      queryLength: 99,
      keyLength: 9,
      headSize: 64,
      isFloat16: false,
      normalize: false,
    };
    assert.throws(
      () => chooseVariant({ ...problem, valueHeadSize: 64 }, { ...LEAST, workgroupBytes: 8192 }),
      /has 8192 bytes of workgroup memory .* needs 16384/,
    );
  });

  const choice = chooseDriver(['swiftshader', 'lavapipe']);
  if ('missing' in choice) it.skip(`run on a device (${choice.missing})`);
  else
    for (const { adapter, heads, length, headSize, attributes } of CALLS)
      it(`give the result of the reference: ${heads} heads of ${headSize}, length ${length}, ${adapter.workgroupBytes} bytes`, async function () {
        this.timeout(120_000);
        const device = await requestDevice(createGpu());
        const kernels = new SigmoidAttentionKernels(device, { adapter });
        // Few rows of many heads: the number of workgroups chooses the tile.
        const dims = [1, heads, length, headSize];
        const inputs = {
          Q: tensor(dims, 1),
          K: tensor([1, 1, length, headSize], 2),
          V: tensor([1, 1, length, headSize], 3),
        };
        const found = toNumbers((await runOnDevice(kernels, inputs, attributes satisfies Attributes)).Y);
        const wanted = sigmoidAttention(inputs, attributes).Y.data;
        kernels.destroy();
        device.destroy();
        const worst = found.reduce((most, value, i) => Math.max(most, Math.abs(value - wanted[i]!)), 0);
        const largest = wanted.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
        assert.ok(worst < 2e-6 * largest, `differs by ${worst} of ${largest}`);
      });
});
