/**
 * The kernel with matrix instructions. No software adapter has them, so that here they are emulated; on an adapter that has
 * them, given by VK_ICD_FILENAMES, the conformance table runs it.
 */

import { strict as assert } from 'node:assert';
import type { AttentionInputs } from '../../op/constraints.js';
import { sigmoidAttention } from '../../op/reference.js';
import type { Attributes } from '../../op/schema.js';
import { fromNumbers, sizeOf, toNumbers, type Tensor } from '../../op/tensor.js';
import { SigmoidAttentionKernels } from '../../wgsl/attention.js';
import { chooseDriver, createGpu, requestDevice } from './device.js';
import { withoutMatrices } from './emulated-matrices.js';
import { runOnDevice } from './run.js';

function tensor(dims: readonly number[], phase: number): Tensor {
  return fromNumbers(
    'float16',
    dims,
    Float64Array.from({ length: sizeOf(dims) }, (_, i) => 1.5 * Math.sin(12.9898 * i + phase)),
  );
}

function inputsOf(
  heads: number,
  kvHeads: number,
  queries: number,
  keys: number,
  size: number,
): AttentionInputs {
  return {
    Q: tensor([1, heads, queries, size], 1),
    K: tensor([1, kvHeads, keys, size], 2),
    V: tensor([1, kvHeads, keys, size], 3),
  };
}

/** A value that no row sees, and that would spoil all of them. */
function withHiddenNaN(inputs: AttentionInputs): AttentionInputs {
  const values = Float64Array.from(toNumbers(inputs.V!));
  values[values.length - 1] = NaN;
  return { ...inputs, V: fromNumbers('float16', inputs.V!.dims, values) };
}

const CALLS: Readonly<Record<string, { inputs: AttentionInputs; attributes: Attributes }>> = {
  'rows and keys that fill no tile': { inputs: inputsOf(2, 1, 41, 75, 16), attributes: { bias: -4 } },
  'causal, with a gain that would lose small weights': {
    inputs: { ...inputsOf(1, 1, 70, 70, 24), head_gain: fromNumbers('float', [1], Float64Array.of(2 ** 20)) },
    attributes: { is_causal: true, bias: -14 },
  },
  'a window and a head size that fills no block': {
    inputs: inputsOf(1, 1, 40, 40, 20),
    attributes: { left_window_size: 9, right_window_size: 3, bias: -2 },
  },
  'a NaN that no row sees': {
    inputs: withHiddenNaN(inputsOf(1, 1, 36, 40, 16)),
    attributes: { right_window_size: 2, bias: -2 },
  },
};

describe('matrix instructions, emulated', () => {
  const choice = chooseDriver(['lavapipe']);
  if (process.env['EMULATE_MATRICES'] === undefined)
    it.skip('take minutes to compile: set EMULATE_MATRICES=1 to run them');
  else if ('missing' in choice) it.skip(`on a device with shader-f16 (${choice.missing})`);
  else
    for (const [name, { inputs, attributes }] of Object.entries(CALLS))
      it(`give the result of the reference: ${name}`, async function () {
        this.timeout(600_000);
        const device = await requestDevice(createGpu());
        if (!device.features.has('shader-f16')) {
          this.test!.title += ' (this adapter has no shader-f16)';
          this.skip();
        }
        const create = device.createShaderModule.bind(device);
        let emulated = 0;
        device.createShaderModule = (descriptor) => {
          if (descriptor.code.includes('subgroup_matrix_left')) emulated++;
          return create({ ...descriptor, code: withoutMatrices(descriptor.code) });
        };
        const kernels = new SigmoidAttentionKernels(device, {
          adapter: { hasMatrices: true, isSoftware: false, workgroupBytes: 32_768 },
        });
        const found = toNumbers((await runOnDevice(kernels, inputs, attributes)).Y);
        const wanted = sigmoidAttention(inputs, attributes).Y.data;
        kernels.destroy();
        device.destroy();
        assert.equal(emulated, 1);
        const worst = found.reduce((most, value, i) => Math.max(most, Math.abs(value - wanted[i]!)), 0);
        const largest = wanted.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
        assert.ok(worst < 1e-3 * largest, `differs by ${worst} of ${largest}`);
      });
});
