/**
 * WebGPU devices in plain Node: Dawn (npm `webgpu`) on whatever Vulkan driver is present. VK_ICD_FILENAMES wins; else
 * SwiftShader as Debian's chromium package installs it, and lavapipe where one is new enough for Dawn.
 */

import { existsSync } from 'node:fs';
import { create, globals } from 'webgpu';

Object.assign(globalThis, globals);

const DRIVERS = {
  swiftshader: '/usr/lib/chromium/vk_swiftshader_icd.json',
  lavapipe: process.env['LAVAPIPE_ICD'] ?? '/usr/share/vulkan/icd.d/lvp_icd.json',
} as const;

export type Driver = keyof typeof DRIVERS;

/** The Vulkan driver to use, or why there is none. Must be chosen before the first device of the process. */
export function chooseDriver(preferred: readonly Driver[]): { driver: string } | { missing: string } {
  const given = process.env['VK_ICD_FILENAMES'] ?? process.env['VK_DRIVER_FILES'];
  if (given !== undefined) return { driver: given };
  const found = preferred.find((name) => existsSync(DRIVERS[name]));
  if (found === undefined)
    return {
      missing: `no Vulkan driver at ${preferred.map((name) => DRIVERS[name]).join(' or ')}; install chromium or set VK_ICD_FILENAMES`,
    };
  process.env['VK_ICD_FILENAMES'] = DRIVERS[found];
  return { driver: DRIVERS[found] };
}

let instance: GPU | undefined;

/** The browser's entry point. One for the process: devices do not survive the collection of their instance. */
export function createGpu(): GPU {
  return (instance ??= create([]));
}

/** A device with the features that the kernels can use and, unless `defaultLimits`, all that the adapter offers. */
export async function requestDevice(gpu: GPU, { defaultLimits = false } = {}): Promise<GPUDevice> {
  const adapter = await gpu.requestAdapter();
  if (adapter === null) throw new Error('the Vulkan driver offers no WebGPU adapter');
  const wanted: GPUFeatureName[] = ['shader-f16', 'timestamp-query', 'subgroups'];
  const { limits } = adapter;
  return adapter.requestDevice({
    requiredFeatures: wanted.filter((feature) => adapter.features.has(feature)),
    requiredLimits: defaultLimits
      ? {}
      : {
          maxStorageBufferBindingSize: limits.maxStorageBufferBindingSize,
          maxBufferSize: limits.maxBufferSize,
          maxComputeWorkgroupStorageSize: limits.maxComputeWorkgroupStorageSize,
          maxComputeInvocationsPerWorkgroup: limits.maxComputeInvocationsPerWorkgroup,
        },
  });
}
