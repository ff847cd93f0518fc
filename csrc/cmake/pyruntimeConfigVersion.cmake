# pyruntimeConfigVersion.cmake -- the version of config.h; it is good for who asks for the same major version, and none newer.

# Below csrc, or below the lib of an installation without Python.
set(pyruntime_CONFIG_H "${CMAKE_CURRENT_LIST_DIR}/../include/pyruntime/config.h")
if(NOT EXISTS "${pyruntime_CONFIG_H}")
    set(pyruntime_CONFIG_H "${CMAKE_CURRENT_LIST_DIR}/../../../include/pyruntime/config.h")
endif()
file(STRINGS "${pyruntime_CONFIG_H}" PACKAGE_VERSION REGEX "^#define PYRT_VERSION ")
string(REGEX REPLACE ".*\"(.*)\".*" "\\1" PACKAGE_VERSION "${PACKAGE_VERSION}")
string(REGEX REPLACE "\\..*" "" pyruntime_MAJOR "${PACKAGE_VERSION}")

if(NOT PACKAGE_FIND_VERSION VERSION_GREATER PACKAGE_VERSION AND
   ("${PACKAGE_FIND_VERSION_MAJOR}" STREQUAL "" OR "${PACKAGE_FIND_VERSION_MAJOR}" EQUAL "${pyruntime_MAJOR}"))
    set(PACKAGE_VERSION_COMPATIBLE TRUE)
    if("${PACKAGE_FIND_VERSION}" STREQUAL "${PACKAGE_VERSION}")
        set(PACKAGE_VERSION_EXACT TRUE)
    endif()
endif()
