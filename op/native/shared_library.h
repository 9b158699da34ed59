// Finding and opening shared libraries at run time.
#pragma once

#include <string>

namespace sigmoid_attention {

// Path of `file_name` in the folder that this very library was loaded from.
std::string PathBesideThisLibrary(const std::string& file_name);

bool FileExists(const std::string& path);

// An open library. It is never closed: functions taken from it stay valid.
class SharedLibrary {
 public:
  // Throws std::runtime_error with the system's reason.
  explicit SharedLibrary(const std::string& path);

  // Throws std::runtime_error when the library has no such function.
  template <typename Function>
  void Load(const char* name, Function* function) const {
    *function = reinterpret_cast<Function>(Find(name));
  }

 private:
  void* Find(const char* name) const;

  std::string path_;
  void* handle_;
};

}  // namespace sigmoid_attention
