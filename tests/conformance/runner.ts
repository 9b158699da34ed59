/**
 * Walks the whole conformance table on one device. A device that cannot do a case says why; the case then counts as
 * skipped, under a title with the reason. Free of Node, so that a page can import it: only `runTable` needs mocha.
 */

import type { AttentionInputs } from '../../op/constraints.js';
import type { Case } from './case.js';
import { inputsOf } from './case-inputs.js';
import { CASES } from './cases.js';
import { type DeviceOutputs, mistakes } from './judge.js';
import { type Expected, expectedOutputs } from './tolerance.js';

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
  const { inputs, expected } = prepared(testCase);
  return mistakes(await device.run(testCase, inputs), expected, testCase.presents);
}

interface Prepared {
  inputs: AttentionInputs;
  expected: Expected;
}

/** Kept, because the reference is slow and several devices may walk the table in one process. */
const preparedCases = new WeakMap<Case, Prepared>();

function prepared(testCase: Case): Prepared {
  let result = preparedCases.get(testCase);
  if (result === undefined) {
    const inputs = inputsOf(testCase);
    result = { inputs, expected: expectedOutputs(inputs, testCase.attributes) };
    preparedCases.set(testCase, result);
  }
  return result;
}
