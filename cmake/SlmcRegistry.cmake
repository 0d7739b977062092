# slmc_registry(PART FOLDER KIND TYPE HEADER TABLE [UNITY]): every FOLDER/*.cc defines `TYPE slmc::KIND_<file>()`; this adds the files to the
# part and writes a table `const std::vector<TYPE(*)()>& slmc::TABLE()` in order of file name. Adding a file is all an addition takes. UNITY: the
# files' local names differ, so that they may be compiled together.
function(slmc_registry part folder kind type header table)
  file(GLOB files CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${folder}/*.cc)
  list(SORT files)
  set(declarations "")
  set(entries "")
  foreach(file ${files})
    get_filename_component(name ${file} NAME_WE)
    string(APPEND declarations "${type} ${kind}_${name}();\n")
    string(APPEND entries "      &${kind}_${name},\n")
  endforeach()
  set(generated ${CMAKE_CURRENT_BINARY_DIR}/${kind}_table.cc)
  file(CONFIGURE OUTPUT ${generated} @ONLY CONTENT "// Made by slmc_registry from ${folder}/*.cc.
#include \"${header}\"

#include <vector>

namespace slmc {
${declarations}
const std::vector<${type} (*)()>& ${table}();
const std::vector<${type} (*)()>& ${table}() {
  static const std::vector<${type} (*)()> entries = {
${entries}  };
  return entries;
}

}  // namespace slmc
")
  target_sources(slmc_${part} PRIVATE ${files} ${generated})
  if(NOT "UNITY" IN_LIST ARGN)
    slmc_alone(${files} ${generated})
  endif()
endfunction()
