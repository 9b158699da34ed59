/**
 * The matrix instructions of subgroups in plain WGSL, for devices that have none: every invocation computes the whole matrices of
 * its subgroup, in float32. It shows that a kernel addresses and combines its blocks as it should; not that a driver does.
 */

const INSTRUCTIONS = /* wgsl */ `
alias Left = array<f32, 256>;
alias Right = array<f32, 256>;
alias Sums = array<f32, 256>;

fn load_rows(offset: u32, pitch: u32) -> array<f32, 256> {
  var block: array<f32, 256>;
  for (var i = 0u; i < 256u; i++) { block[i] = f32(halves[offset + i / 16u * pitch + i % 16u / 4u][i % 4u]); }
  return block;
}

fn load_columns(offset: u32, pitch: u32) -> array<f32, 256> {
  var block: array<f32, 256>;
  for (var i = 0u; i < 256u; i++) { block[i % 16u * 16u + i / 16u] = f32(halves[offset + i / 16u * pitch + i % 16u / 4u][i % 4u]); }
  return block;
}

fn multiply_add(left: array<f32, 256>, right: array<f32, 256>, sums: array<f32, 256>) -> array<f32, 256> {
  var a = left;
  var b = right;
  var c = sums;
  for (var i = 0u; i < 256u; i++) {
    for (var k = 0u; k < 16u; k++) { c[i] += a[i / 16u * 16u + k] * b[k * 16u + i % 16u]; }
  }
  return c;
}

fn store_rows(offset: u32, block: array<f32, 256>, pitch: u32) {
  var all = block;
  for (var i = 0u; i < 256u; i++) { scores[offset + i / 16u * pitch + i % 16u / 4u][i % 4u] = all[i]; }
}
`;

/** The same shader for a device without matrix instructions. */
export function withoutMatrices(code: string): string {
  if (!code.includes('subgroup_matrix_left')) return code;
  return code
    .replace(
      /^(enable subgroups|enable chromium_experimental_subgroup_matrix|diagnostic\(off, [\w.]+\));$/gm,
      '',
    )
    .replace(/^alias (Left|Right|Sums) = subgroup_matrix.*$/gm, '')
    .replaceAll('subgroupMatrixLoad<Left, row_major>(&halves, ', 'load_rows(')
    .replaceAll('subgroupMatrixLoad<Right, row_major>(&halves, ', 'load_rows(')
    .replaceAll('subgroupMatrixLoad<Right, col_major>(&halves, ', 'load_columns(')
    .replaceAll('subgroupMatrixStore<row_major>(&scores, ', 'store_rows(')
    .replaceAll('subgroupMatrixMultiplyAccumulate(', 'multiply_add(')
    .concat(INSTRUCTIONS);
}
