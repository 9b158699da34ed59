/** The WGSL kernels as a device of the conformance table. Free of Node: a page runs it too. */

import type { SigmoidAttentionKernels } from '../../wgsl/attention.js';
import type { Device } from '../conformance/runner.js';
import { runOnDevice } from './run.js';

export function wgslDevice(name: string, kernels: SigmoidAttentionKernels): Device {
  const hasFloat16 = kernels.device.features.has('shader-f16');
  return {
    name,
    supports: ({ type }) => {
      if (type === 'bfloat16') return 'WGSL has no bfloat16';
      return type === 'float' || hasFloat16 || 'this adapter has no shader-f16';
    },
    run: ({ attributes }, inputs) => runOnDevice(kernels, inputs, attributes),
  };
}
