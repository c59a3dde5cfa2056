package api

import (
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// methodsOfAPI returns the path of each method that the files of the API describe.
func methodsOfAPI() map[string]bool {
	methods := map[string]bool{}
	protoregistry.GlobalFiles.RangeFilesByPackage(basev1.File_base_v1_base_proto.Package(), func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				methods["/"+string(service.FullName())+"/"+string(service.Methods().Get(j).Name())] = true
			}
		}
		return true
	})
	return methods
}

func TestEachMethodHasARowInTheRolesTableAndEachRowAMethod(t *testing.T) {
	methods := methodsOfAPI()
	if len(methods) == 0 {
		t.Fatal("the API has no methods: this test looks in the wrong place")
	}
	for method := range methods {
		if _, ok := roles[method]; !ok {
			t.Errorf("%s has no row in roles", method)
		}
	}
	for method, role := range roles {
		if !methods[method] {
			t.Errorf("roles has a row for %s, which the API does not have", method)
		}
		if role <= basev1.Role_ROLE_UNSPECIFIED || role > basev1.Role_ROLE_OWNER {
			t.Errorf("%s may be called by role %v, which no App has", method, role)
		}
	}
}
