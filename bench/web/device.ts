/** A WebGPU device in Node with all that the adapter offers to the kernels. */

import { existsSync } from 'node:fs';
import { create, globals } from 'webgpu';

Object.assign(globalThis, globals);

const SWIFTSHADER = '/usr/lib/chromium/vk_swiftshader_icd.json';

let instance: GPU | undefined;

export async function openDevice(): Promise<GPUDevice> {
  const { env } = process;
  if (
    env['VK_ICD_FILENAMES'] === undefined &&
    env['VK_DRIVER_FILES'] === undefined &&
    existsSync(SWIFTSHADER)
  )
    env['VK_ICD_FILENAMES'] = SWIFTSHADER;
  instance ??= create([]);
  const adapter = await instance.requestAdapter({ powerPreference: 'high-performance' });
  if (adapter === null)
    throw new Error('no Vulkan driver; set VK_ICD_FILENAMES, or install chromium for SwiftShader');
  const features: GPUFeatureName[] = ['shader-f16', 'subgroups', 'timestamp-query'];
  const { maxBufferSize, maxStorageBufferBindingSize, maxComputeWorkgroupStorageSize } = adapter.limits;
  return adapter.requestDevice({
    requiredFeatures: features.filter((feature) => adapter.features.has(feature)),
    requiredLimits: { maxBufferSize, maxStorageBufferBindingSize, maxComputeWorkgroupStorageSize },
  });
}
