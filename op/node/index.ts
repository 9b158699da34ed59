/**
 * `import 'ort-sigmoid-attention/node'` makes stock onnxruntime-node run models with SigmoidAttention nodes:
 * `ort.InferenceSession.create(pathOrBytes, options)` as ever, before or after this import, in every thread that imports
 * it. All other models are untouched.
 */

import { routeSessions } from './routing.js';
import { stockPackages } from './stock-package.js';

export { libraryPath } from './package-root.js';

/**
 * Does what importing this module does, for every copy of onnxruntime-node that the program has loaded by now.
 * Safe to call again. Throws an Error when onnxruntime-node is not installed.
 */
export function register(): void {
  for (const stock of stockPackages()) routeSessions(stock);
}

register();
