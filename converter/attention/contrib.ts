/** Readers for the attention operators of ONNX Runtime's contrib domain, com.microsoft. */
import type { FusedReader } from './fused.js';

export function readContrib(_opType: string): FusedReader | null {
  return null;
}
