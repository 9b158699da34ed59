/** The conformance table on the WGSL kernels in the page. */

import { CASES } from '../../conformance/cases.js';
import { runCase, type Device } from '../../conformance/runner.js';
import { SigmoidAttentionKernels } from '../../../wgsl/attention.js';
import { wgslDevice } from '../../wgsl/conformance-device.js';

let device: Device | undefined;

async function kernelDevice(): Promise<Device> {
  if (device !== undefined) return device;
  const adapter = await navigator.gpu.requestAdapter();
  if (adapter === null) throw new Error('the browser offers no WebGPU adapter');
  const requiredFeatures = (['shader-f16'] as const).filter((feature) => adapter.features.has(feature));
  const gpu = await adapter.requestDevice({ requiredFeatures });
  return (device = wgslDevice('WGSL in Chromium', new SigmoidAttentionKernels(gpu)));
}

export interface CaseResult {
  readonly unsupported?: string;
  readonly mistakes: readonly string[];
}

/** Runs one case by its name. */
export async function conformance(name: string): Promise<CaseResult> {
  const testCase = CASES.find((candidate) => candidate.name === name);
  if (testCase === undefined) throw new Error(`there is no case '${name}'`);
  const kernels = await kernelDevice();
  const support = kernels.supports(testCase);
  return support === true
    ? { mistakes: await runCase(kernels, testCase) }
    : { unsupported: support, mistakes: [] };
}
