/**
 * Walks the whole conformance table on one device. A device that cannot do a case says why; the case then counts as
 * skipped, under a title with the reason. Free of Node, so that a page can import it: only `runTable` needs mocha.
 */

import type { AttentionInputs } from '../../op/constraints.js';
import type { Case } from './case.js';
import { inputsOf } from './case-inputs.js';
import { CASES } from './cases.js';
import { type DeviceOutputs, mistakes } from './judge.js';
import { expectedOutputs } from './tolerance.js';

export interface Device {
  readonly name: string;
  /** `true`, or the reason why this device cannot do the case. */
  supports(testCase: Case): true | string;
  run(testCase: Case, inputs: AttentionInputs): Promise<DeviceOutputs>;
}

/** Defines one mocha test a case. */
export function runTable(device: Device, cases: readonly Case[] = CASES): void {
  describe(`conformance: ${device.name}`, () => {
    for (const testCase of cases) {
      const support = device.supports(testCase);
      if (support === true)
        it(testCase.name, async () => {
          const found = await runCase(device, testCase);
          if (found.length > 0) throw new Error(found.join('\n'));
        });
      else it.skip(`${testCase.name} (${support})`);
    }
  });
}

/** The device's mistakes in one case: empty when it is right. */
export async function runCase(device: Device, testCase: Case): Promise<string[]> {
  const inputs = inputsOf(testCase);
  const outputs = await device.run(testCase, inputs);
  return mistakes(outputs, expectedOutputs(inputs, testCase.attributes), testCase.presents);
}
