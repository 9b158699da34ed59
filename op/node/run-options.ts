/** Run options of `InferenceSession.run`, checked as stock onnxruntime-node checks them. */

import type { InferenceSession } from 'onnxruntime-common';
import type { Setting } from './native-addon.js';
import { configEntries, logLevels } from './session-options.js';

/** Throws a TypeError or RangeError in stock onnxruntime-node's words for an option it would refuse. */
export function runSettings(runOptions: InferenceSession.RunOptions): Setting[] {
  const options = runOptions as Readonly<Record<string, unknown>>;
  const settings: Setting[] = [...logLevels(options, 'runOptions')];
  if ('tag' in options) {
    if (typeof options.tag !== 'string') {
      throw new TypeError('Invalid argument: runOptions.tag must be a string.');
    }
    settings.push(['tag', options.tag]);
  }
  // Documented in onnxruntime-common, ignored by stock onnxruntime-node.
  if (options.terminate === true) settings.push(['terminate', true]);
  if (typeof options.extra === 'object' && options.extra !== null) {
    const error = 'runOptions.extra value must be a string in Node.js binding.';
    const entries = configEntries(options.extra as Readonly<Record<string, unknown>>, error);
    for (const [key, value] of entries) settings.push(['config', key, value]);
  }
  return settings;
}
