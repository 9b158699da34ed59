// See shared_library.h.
#include "op/native/shared_library.h"

#include <filesystem>
#include <stdexcept>

#if defined(_WIN32)
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace sigmoid_attention {
namespace {

// Its address tells which library this code is in.
const char kAnchor = 0;

#if defined(_WIN32)

std::filesystem::path ThisLibrary() {
  HMODULE module = nullptr;
  GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT,
                     reinterpret_cast<LPCWSTR>(&kAnchor), &module);
  wchar_t path[32768];
  const DWORD length = GetModuleFileNameW(module, path, static_cast<DWORD>(std::size(path)));
  return std::wstring(path, length);
}

void* Open(const std::string& path, std::string* reason) {
  HMODULE module =
      LoadLibraryExW(std::filesystem::u8path(path).c_str(), nullptr, LOAD_WITH_ALTERED_SEARCH_PATH);
  if (module == nullptr) *reason = "Windows error " + std::to_string(GetLastError());
  return module;
}

void* Symbol(void* handle, const char* name) {
  return reinterpret_cast<void*>(GetProcAddress(static_cast<HMODULE>(handle), name));
}

#else

std::filesystem::path ThisLibrary() {
  Dl_info info{};
  if (dladdr(&kAnchor, &info) == 0 || info.dli_fname == nullptr) return {};
  return info.dli_fname;
}

void* Open(const std::string& path, std::string* reason) {
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) *reason = dlerror();
  return handle;
}

void* Symbol(void* handle, const char* name) {
  return dlsym(handle, name);
}

#endif

}  // namespace

std::string PathBesideThisLibrary(const std::string& file_name) {
  std::error_code error;
  return (std::filesystem::absolute(ThisLibrary(), error).parent_path() / file_name).u8string();
}

bool FileExists(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_regular_file(std::filesystem::u8path(path), error);
}

SharedLibrary::SharedLibrary(const std::string& path) : path_(path) {
  std::string reason;
  handle_ = Open(path, &reason);
  if (handle_ == nullptr) throw std::runtime_error("Cannot open " + path + ": " + reason);
}

void* SharedLibrary::Find(const char* name) const {
  void* symbol = Symbol(handle_, name);
  if (symbol == nullptr)
    throw std::runtime_error(path_ + " has no function " + name + ": it is of another version.");
  return symbol;
}

}  // namespace sigmoid_attention
