// Stage browser: Chromium, whose SwiftShader is the software WebGPU that the tests run on, and the Vulkan loader.
import { existsSync } from 'node:fs';
import { SetupError, hasProgram, installDebianPackages } from './run.mjs';

const CHROMIUM = '/usr/bin/chromium';
const VULKAN_LOADERS = [
  '/usr/lib/x86_64-linux-gnu/libvulkan.so.1',
  '/usr/lib/aarch64-linux-gnu/libvulkan.so.1',
  '/usr/lib64/libvulkan.so.1',
];

/** @param {string} root */
export function installBrowser(_root) {
  const own = process.env.CHROMIUM_PATH;
  if (own && !existsSync(own))
    throw new SetupError(`CHROMIUM_PATH is '${own}', must be the path of a Chromium.`);
  const missing = [];
  if (!own && !existsSync(CHROMIUM) && !hasProgram('chromium')) missing.push('chromium');
  if (process.platform === 'linux' && !VULKAN_LOADERS.some((path) => existsSync(path)))
    missing.push('libvulkan1');
  if (missing.length > 0) installDebianPackages(missing, 'testing in a browser');
}
