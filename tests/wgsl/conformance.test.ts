/** The whole conformance table on the WGSL kernels in plain Node, on a software Vulkan driver. */

import { runTable } from '../conformance/runner.js';
import { wgslDevice } from './conformance-device.js';
import { chooseDriver, createGpu, requestDevice } from './device.js';
import { SigmoidAttentionKernels } from '../../wgsl/attention.js';

const choice = chooseDriver(['swiftshader', 'lavapipe']);
if ('missing' in choice) describe.skip(`conformance: WGSL (${choice.missing})`, () => undefined);
else {
  const gpu = createGpu();
  const device = await requestDevice(gpu);
  const kernels = new SigmoidAttentionKernels(device);
  after(() => {
    kernels.destroy();
    device.destroy();
  });
  runTable(wgslDevice(`WGSL in Node (${gpuName(device)})`, kernels));
}

function gpuName(device: GPUDevice): string {
  return device.adapterInfo.description || device.adapterInfo.vendor;
}
