# pyruntimeConfig.cmake -- find_package(pyruntime), with pyruntime_DIR=$(python -m pyruntime --cmakedir).
#
#   pyruntime::capi   for extensions that use the runtime of the process: the headers in the way of <pyruntime/capi.h>; nothing
#                     is linked
#   pyruntime::core   the core, compiled with the settings of the including project, for the program or shared library that
#                     links to it by this name; none of its names leave that
#
#   pyruntime_add_core(TARGET [PREFIX my_])
#                     compiles a core of its own into a target, and gives its names and those in the target the prefix, as
#                     <pyruntime/vendored.h> wants it; the names of neither leave the target
#
# All paths are relative to this file: it works in an installed package and in a source tree alike.

get_filename_component(pyruntime_SOURCE_ROOT "${CMAKE_CURRENT_LIST_DIR}/.." ABSOLUTE)

if(NOT TARGET pyruntime::capi)
    add_library(pyruntime::capi INTERFACE IMPORTED)
    set_target_properties(pyruntime::capi PROPERTIES
        INTERFACE_INCLUDE_DIRECTORIES "${pyruntime_SOURCE_ROOT}/include"
        INTERFACE_COMPILE_DEFINITIONS PYRT_USE_CAPI=1)
endif()

set_property(GLOBAL PROPERTY pyruntime_SOURCE_ROOT "${pyruntime_SOURCE_ROOT}")

# Objects, not an archive: the floors meet through constructors, of which a linker that takes what is referred to would leave some
# out. Made when a target of the project links to them, and not otherwise.
function(pyruntime_add_objects name)
    get_property(languages GLOBAL PROPERTY ENABLED_LANGUAGES)
    if(NOT "C" IN_LIST languages)
        message(FATAL_ERROR "the core of pyruntime is compiled from C: add C to the languages of project()")
    endif()
    get_property(root GLOBAL PROPERTY pyruntime_SOURCE_ROOT)
    file(GLOB_RECURSE sources CONFIGURE_DEPENDS "${root}/core/*.c")
    add_library(${name} OBJECT EXCLUDE_FROM_ALL ${sources})
    set_target_properties(${name} PROPERTIES
        C_STANDARD 11
        C_EXTENSIONS ON
        C_VISIBILITY_PRESET hidden
        POSITION_INDEPENDENT_CODE ON)
    target_include_directories(${name} PUBLIC "${root}/include" PRIVATE "${root}/core")
    target_compile_options(${name} PUBLIC -pthread)
    target_link_options(${name} INTERFACE -pthread)
endfunction()

function(pyruntime_add_core target)
    cmake_parse_arguments(PARSE_ARGV 1 given "" "PREFIX" "")
    if(NOT TARGET "${target}" OR DEFINED given_UNPARSED_ARGUMENTS OR DEFINED given_KEYWORDS_MISSING_VALUES
       OR (DEFINED given_PREFIX AND NOT given_PREFIX MATCHES "^[A-Za-z_][A-Za-z0-9_]*$"))
        message(FATAL_ERROR "pyruntime_add_core(TARGET [PREFIX my_]) wants a target, and what can begin a name in C; not: ${ARGV}")
    endif()
    pyruntime_add_objects(${target}_pyruntime)
    if(DEFINED given_PREFIX)
        target_compile_definitions(${target}_pyruntime PUBLIC PYRT_PREFIX=${given_PREFIX})
    endif()
    set_target_properties(${target} PROPERTIES C_VISIBILITY_PRESET hidden CXX_VISIBILITY_PRESET hidden)
    target_link_libraries(${target} PRIVATE ${target}_pyruntime)
endfunction()

if(NOT TARGET pyruntime_core)
    pyruntime_add_objects(pyruntime_core)
    add_library(pyruntime::core ALIAS pyruntime_core)
endif()
