// Prepares a checkout: node scripts/setup.mjs [deps] [dist] [native] [browser] [cuda]   (default: all but cuda)
//
//   deps     npm packages, as package-lock.json has them
//   dist     the compiled package, in dist: its command line and its exports
//   native   the operator library and the Node addon, in build/native
//   browser  Chromium and software Vulkan, for the WebGPU tests (Debian; elsewhere set CHROMIUM_PATH)
//   cuda     the CUDA library, in build/native (needs nvcc; takes minutes)
//
// Each stage does nothing when what it makes is there and up to date. Plain Node, no packages: it runs first.
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { installDependencies } from './setup/dependencies.mjs';
import { buildDist } from './setup/dist.mjs';
import { buildCuda, buildNative } from './setup/native.mjs';
import { installBrowser } from './setup/browser.mjs';
import { SetupError } from './setup/run.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));

const stages = {
  deps: () => installDependencies(root),
  dist: () => buildDist(root),
  native: () => buildNative(root),
  browser: () => installBrowser(root),
  cuda: () => buildCuda(root),
};

const wanted = process.argv.slice(2);
const unknown = wanted.find((name) => !Object.hasOwn(stages, name));
if (unknown !== undefined) {
  console.error(`setup: unknown stage '${unknown}', must be one of ${Object.keys(stages).join(', ')}.`);
  process.exit(1);
}

try {
  for (const name of wanted.length > 0 ? wanted : ['deps', 'dist', 'native', 'browser']) await stages[name]();
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  console.error(`setup: ${error.message}`);
  process.exit(1);
}
