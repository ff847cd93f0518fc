# pyruntimeConfig.cmake -- find_package(pyruntime), with pyruntime_DIR=$(python -m pyruntime --cmakedir).
#
#   pyruntime::capi   for extensions that use the runtime of the process: the headers in the way of <pyruntime/capi.h>; nothing
#                     is linked
#   pyruntime::core   the core, compiled with the settings of the including project, for the program or shared library that
#                     links to it by this name; none of its names leave that
#
# All paths are relative to this file: it works in an installed package and in a source tree alike.

get_filename_component(pyruntime_SOURCE_ROOT "${CMAKE_CURRENT_LIST_DIR}/.." ABSOLUTE)

if(NOT TARGET pyruntime::capi)
    add_library(pyruntime::capi INTERFACE IMPORTED)
    set_target_properties(pyruntime::capi PROPERTIES
        INTERFACE_INCLUDE_DIRECTORIES "${pyruntime_SOURCE_ROOT}/include"
        INTERFACE_COMPILE_DEFINITIONS PYRT_USE_CAPI=1)
endif()

if(NOT TARGET pyruntime_core)
    get_property(pyruntime_languages GLOBAL PROPERTY ENABLED_LANGUAGES)
    if(NOT "C" IN_LIST pyruntime_languages)
        message(FATAL_ERROR "pyruntime::core is compiled from C: add C to the languages of project()")
    endif()
    file(GLOB_RECURSE pyruntime_SOURCES CONFIGURE_DEPENDS "${pyruntime_SOURCE_ROOT}/core/*.c")
    # Objects, not an archive: the floors meet through constructors, of which a linker that takes what is referred to would leave
    # some out. Made when a target of the project links to it, and not otherwise.
    add_library(pyruntime_core OBJECT EXCLUDE_FROM_ALL ${pyruntime_SOURCES})
    add_library(pyruntime::core ALIAS pyruntime_core)
    set_target_properties(pyruntime_core PROPERTIES
        C_STANDARD 11
        C_EXTENSIONS ON
        C_VISIBILITY_PRESET hidden
        POSITION_INDEPENDENT_CODE ON)
    target_include_directories(pyruntime_core
        PUBLIC "${pyruntime_SOURCE_ROOT}/include"
        PRIVATE "${pyruntime_SOURCE_ROOT}/core")
    target_compile_options(pyruntime_core PUBLIC -pthread)
    target_link_options(pyruntime_core INTERFACE -pthread)
endif()
