/** Sigmoid attention in the browser: `install(ort)`, then use onnxruntime-web as always. */
export { install, type InstallOptions } from './install.js';
export { gpuResources } from './device-context.js';
export type { OrtModule } from './runtime.js';
