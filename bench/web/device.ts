/** A WebGPU device in Node with all that the adapter offers to the kernels. */

import { existsSync } from 'node:fs';
import { create, globals } from 'webgpu';

Object.assign(globalThis, globals);

const SWIFTSHADER = '/usr/lib/chromium/vk_swiftshader_icd.json';
/** Dawn hides shader-f16 of NVIDIA's Vulkan driver without it; ONNX Runtime's own Dawn uses it too. */
const FLOAT16_ON_NVIDIA = 'enable-dawn-features=vulkan_enable_f16_on_nvidia';

let instance: GPU | undefined;

export interface BenchDevice {
  readonly gpu: GPU;
  readonly device: GPUDevice;
  readonly adapterName: string;
  /** A CPU emulates the GPU. */
  readonly isSoftware: boolean;
}

/** @param withSubgroups false: a device without the feature, on which ONNX Runtime's attention takes another path */
export async function openDevice(withSubgroups = true): Promise<BenchDevice> {
  const { env } = process;
  if (
    env['VK_ICD_FILENAMES'] === undefined &&
    env['VK_DRIVER_FILES'] === undefined &&
    existsSync(SWIFTSHADER)
  )
    env['VK_ICD_FILENAMES'] = SWIFTSHADER;
  instance ??= create([FLOAT16_ON_NVIDIA]);
  const adapter = await instance.requestAdapter({ powerPreference: 'high-performance' });
  if (adapter === null)
    throw new Error('no Vulkan driver; set VK_ICD_FILENAMES, or install chromium for SwiftShader');
  const features: GPUFeatureName[] = ['shader-f16', ...(withSubgroups ? (['subgroups'] as const) : [])];
  const {
    maxBufferSize,
    maxStorageBufferBindingSize,
    maxComputeWorkgroupStorageSize,
    maxComputeInvocationsPerWorkgroup,
    maxComputeWorkgroupSizeX,
  } = adapter.limits;
  const device = await adapter.requestDevice({
    requiredFeatures: features.filter((feature) => adapter.features.has(feature)),
    requiredLimits: {
      maxBufferSize,
      maxStorageBufferBindingSize,
      maxComputeWorkgroupStorageSize,
      maxComputeInvocationsPerWorkgroup,
      maxComputeWorkgroupSizeX,
    },
  });
  const { description, vendor, architecture } = device.adapterInfo;
  const adapterName = description || `${vendor} ${architecture}`;
  return { gpu: instance, device, adapterName, isSoftware: /swiftshader|llvmpipe/i.test(adapterName) };
}
