/**
 * The whole conformance table on the WGSL kernels in plain Node, on a software Vulkan driver; and again the cases for which GPUs get
 * another kernel than software adapters do, with that kernel.
 */

import { CASES } from '../conformance/cases.js';
import { runTable } from '../conformance/runner.js';
import { wgslDevice } from './conformance-device.js';
import { chooseDriver, createGpu, requestDevice } from './device.js';
import { SigmoidAttentionKernels } from '../../wgsl/attention.js';
import { MAX_DECODE_ROWS } from '../../wgsl/variants.js';

const choice = chooseDriver(['swiftshader', 'lavapipe']);
if ('missing' in choice) describe.skip(`conformance: WGSL (${choice.missing})`, () => undefined);
else {
  const gpu = createGpu();
  const device = await requestDevice(gpu);
  const kernels = new SigmoidAttentionKernels(device);
  const kernelsOfGpus = new SigmoidAttentionKernels(device, { adapter: { isSoftware: false } });
  after(() => {
    kernels.destroy();
    kernelsOfGpus.destroy();
    device.destroy();
  });
  const name = `WGSL in Node (${gpuName(device)})`;
  runTable(wgslDevice(name, kernels));
  // More rows of a key head than the kernel for decoding takes, which is the same everywhere.
  const prefill = CASES.filter(
    ({ sizes: { queryLength, queryHeads, kvHeads } }) =>
      (queryLength * queryHeads) / kvHeads > MAX_DECODE_ROWS,
  );
  runTable(wgslDevice(`${name}, kernels for GPUs`, kernelsOfGpus), prefill);
}

function gpuName(device: GPUDevice): string {
  return device.adapterInfo.description || device.adapterInfo.vendor;
}
