/** A WebGPU device in Node with all that the adapter offers to the kernels. */

import { existsSync } from 'node:fs';
import { create, globals } from 'webgpu';

Object.assign(globalThis, globals);

const SWIFTSHADER = '/usr/lib/chromium/vk_swiftshader_icd.json';
/**
 * Dawn hides shader-f16 of NVIDIA's Vulkan driver without the first, and matrix instructions without the second; ONNX Runtime's own
 * Dawn uses both too.
 */
const DAWN_FEATURES = 'enable-dawn-features=vulkan_enable_f16_on_nvidia,allow_unsafe_apis';
const MATRICES = 'chromium-experimental-subgroup-matrix' as GPUFeatureName;

let instance: GPU | undefined;

export interface BenchDevice {
  readonly gpu: GPU;
  readonly device: GPUDevice;
  readonly adapterName: string;
  /** A CPU emulates the GPU. */
  readonly isSoftware: boolean;
  readonly hasMatrices: boolean;
}

/**
 * A device with shader-f16 and, as wanted, subgroups (without them ONNX Runtime's attention takes another path) or also matrix
 * instructions.
 */
export async function openDevice(
  wanted: 'plain' | 'subgroups' | 'matrices' = 'subgroups',
): Promise<BenchDevice> {
  const { env } = process;
  if (
    env['VK_ICD_FILENAMES'] === undefined &&
    env['VK_DRIVER_FILES'] === undefined &&
    existsSync(SWIFTSHADER)
  )
    env['VK_ICD_FILENAMES'] = SWIFTSHADER;
  instance ??= create([DAWN_FEATURES, 'disable-dawn-features=timestamp_quantization']);
  const adapter = await instance.requestAdapter({ powerPreference: 'high-performance' });
  if (adapter === null)
    throw new Error('no Vulkan driver; set VK_ICD_FILENAMES, or install chromium for SwiftShader');
  const features: GPUFeatureName[] = ['shader-f16', 'timestamp-query'];
  if (wanted !== 'plain') features.push('subgroups');
  if (wanted === 'matrices') features.push(MATRICES);
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
  return {
    gpu: instance,
    device,
    adapterName,
    isSoftware: /swiftshader|llvmpipe/i.test(adapterName),
    hasMatrices: device.features.has(MATRICES),
  };
}
